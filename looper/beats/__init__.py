"""A waveform and the asked tempo -> beats, bar lines and the best span of bars."""
