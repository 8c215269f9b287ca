"""Stand-in checkpoints, fakes, a hub and a Cog server, for tests and benches."""
