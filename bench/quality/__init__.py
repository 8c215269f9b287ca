"""Figures of what the loops are worth: beats, seams, lengths."""
