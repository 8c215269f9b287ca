"""A set of loops -> named files, packs and pictures."""
