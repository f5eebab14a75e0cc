"""Data sets: uint8 on disk to float32 in [0, 1]."""
