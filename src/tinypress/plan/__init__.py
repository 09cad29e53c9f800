"""Choose: what went wrong with a run's candidate, and what mends it."""
