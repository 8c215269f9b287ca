"""A waveform and its beat grid -> a seamless loop of exactly the asked tempo."""
