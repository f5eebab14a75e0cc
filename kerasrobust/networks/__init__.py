"""What is trained, and what an attack sees of any model."""
