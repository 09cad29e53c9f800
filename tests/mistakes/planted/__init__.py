"""Wrong formulas that somebody could have written, each with the tests that must notice it.

``old`` stands exactly once in ``file``; a mistake that no longer fits the code fails the tests by itself.
"""

from planted import (
    in_distill,
    in_graph,
    in_measure,
    in_press,
    in_prune,
    in_quantize,
    in_rest,
    in_ship,
    in_shrink,
    in_tasks,
    in_train,
)
from planted.mistake import Planted

PLANTED: tuple[Planted, ...] = (
    *in_distill.MISTAKES,
    *in_graph.MISTAKES,
    *in_measure.MISTAKES,
    *in_press.MISTAKES,
    *in_prune.MISTAKES,
    *in_quantize.MISTAKES,
    *in_ship.MISTAKES,
    *in_shrink.MISTAKES,
    *in_tasks.MISTAKES,
    *in_train.MISTAKES,
    *in_rest.MISTAKES,
)

__all__ = ["PLANTED", "Planted"]
