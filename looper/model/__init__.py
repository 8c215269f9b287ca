"""MusicGen's network: transformer, codec, conditioning and beat clock, as plain functions of tensors."""
