"""What an engine's numbers are worth beside the reference."""
