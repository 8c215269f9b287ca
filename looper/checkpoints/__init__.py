"""Model folders: find, fetch, download, convert, verify, load."""
