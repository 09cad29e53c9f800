"""The course that grows out of tinypress: write the techniques, have them checked, press a real network."""
