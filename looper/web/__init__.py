"""The page, and the server that stands between it and Cog."""
