"""Expression files and their language: text to a problem."""
