"""Built-in real tasks: one file each, and the way to a user's own."""
