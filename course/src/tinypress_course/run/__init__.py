"""The learner's engine beside the toolkit's: function by function, and as files that were measured."""
