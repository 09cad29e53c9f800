"""Mistakes that people make with each function, to be recognised and named."""
