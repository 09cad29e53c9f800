"""One training loop for everything: it knows data, an objective and a schedule, and no technique."""
