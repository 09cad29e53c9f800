"""A quantized network in plain integers: what every runtime has to give.

``program.py`` says what is computed in integers and what in float, ``kernels.py`` and ``windows.py`` hold the integer
kernels, ``operators.py`` the rest, ``run.py`` runs it all.
"""

from tinypress.quantize.reference.operators import UnknownOperator
from tinypress.quantize.reference.program import Program, Step, program_of
from tinypress.quantize.reference.run import evaluate, run_reference

__all__ = ["Program", "Step", "UnknownOperator", "evaluate", "program_of", "run_reference"]
