"""How weights/tiny and the beat grid's scorer were made."""
