"""One recording <-> one file: formats, tags, and writes that are whole or not at all."""
