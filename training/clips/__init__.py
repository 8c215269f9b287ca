"""Rendered clips whose beats are known, to fit and to measure the beat grid with."""
