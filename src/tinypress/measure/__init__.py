"""Look: the only place that makes numbers. Each file measures one thing and changes nothing."""
