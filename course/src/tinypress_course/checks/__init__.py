"""The promises of every function of the module, step by step."""
