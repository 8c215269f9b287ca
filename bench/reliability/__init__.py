"""Long runs: soak, faults, fuzz."""
