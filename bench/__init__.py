"""The figures in the README, each beside a named baseline."""
