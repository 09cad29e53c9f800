"""Opens a shipped file in the runtime that will run it: one Runner for each runtime."""
