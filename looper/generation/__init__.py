"""Prompts to codes to waveforms: decoding, sampling, and what the model thinks of music that is there."""
