"""Small functions on tensors: losses, balls, random draws, tracing."""
