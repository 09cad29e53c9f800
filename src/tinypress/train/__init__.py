"""One training loop for everything: it knows data, an objective and a schedule, and no technique."""

from tinypress.train.batchnorm import reestimate_batch_norm
from tinypress.train.checkpoint import Checkpoint
from tinypress.train.hooks import Hook, MakeHook
from tinypress.train.loop import Fitted, Objective, Schedule, fit, mean_objective, supervised
from tinypress.train.processes import Processes, accelerated, one_process
from tinypress.train.progress import Progress, silent, with_time_left

__all__ = [
    "Checkpoint",
    "Fitted",
    "Hook",
    "MakeHook",
    "Objective",
    "Processes",
    "Progress",
    "Schedule",
    "accelerated",
    "fit",
    "mean_objective",
    "one_process",
    "reestimate_batch_norm",
    "silent",
    "supervised",
    "with_time_left",
]
