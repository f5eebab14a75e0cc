"""The work behind each command: train, attack, study, compare."""
