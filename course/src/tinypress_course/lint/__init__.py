"""The author's linter: what a module's source promises to learners, to graders and to the book, looked at as data."""
