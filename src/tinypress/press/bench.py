"""What the steps of a recipe work with."""

from __future__ import annotations

from dataclasses import dataclass

from tinypress.press.engine import Engine
from tinypress.task import Task
from tinypress.train.checkpoint import Checkpoint
from tinypress.train.loop import Progress, silent
from tinypress.train.processes import Processes


@dataclass(frozen=True)
class Bench:
    """What every step works with: the task, the engine, the seed, who watches, where a training is kept and done."""

    task: Task
    engine: Engine
    seed: int
    progress: Progress = silent
    checkpoint: Checkpoint | None = None
    processes: Processes | None = None
