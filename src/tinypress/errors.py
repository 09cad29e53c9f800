"""The error tree. Every error repeats the call that failed, says what was wrong and what to do.

TinypressError                something tinypress refuses, with the remedy
├── InputError                an argument out of range or of the wrong kind (also a ValueError)
│   ├── ModelError            a network that cannot be pressed: NaN weights, not traceable
│   ├── DataError             samples that cannot be used: empty, wrong shape, labels out of range
│   ├── TaskError             a task that cannot be found or lacks what the call needs
│   └── RecipeError           a recipe with an unknown technique, key or value
├── ArtifactError             a shipped file that is truncated, foreign or hostile
├── ShipError                 a file that would not compute what its plan says: which layer, and by how much
├── RunError                  a run folder that cannot be written, read or continued
└── MissingExtra              an optional dependency that is not installed
"""


class TinypressError(Exception):
    """A refusal: the ``call`` that failed, the ``problem`` in it and the ``remedy``."""

    def __init__(self, call: str, problem: str, remedy: str) -> None:
        super().__init__(f"{call}: {problem}. {remedy}")
        self.call = call
        self.problem = problem
        self.remedy = remedy


class InputError(TinypressError, ValueError):
    """An argument out of range or of the wrong kind."""


class ModelError(InputError):
    """A network that cannot be pressed."""


class DataError(InputError):
    """Samples that cannot be used."""


class TaskError(InputError):
    """A task that cannot be found or lacks what the call needs."""


class RecipeError(InputError):
    """A recipe with an unknown technique, key or value."""


class ArtifactError(TinypressError):
    """A shipped file that is truncated, foreign or hostile."""


class ShipError(TinypressError):
    """A file that would not compute what its plan says."""


class RunError(TinypressError):
    """A run folder that cannot be written, read or continued."""


class MissingExtra(TinypressError, ImportError):
    """An optional dependency that is not installed."""
