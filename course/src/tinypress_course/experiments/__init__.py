"""Small measured experiments behind the ideas that people know by name."""
