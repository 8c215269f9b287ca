"""How weights/tiny was made."""
