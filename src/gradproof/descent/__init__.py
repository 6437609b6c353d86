"""The training loop, every step of it."""
