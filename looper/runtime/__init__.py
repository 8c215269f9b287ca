"""What the machine is asked: threads, memory, devices, caches; and checks of plain values."""
