"""A network traced once into plain data: which operation reads which value, and whose weights it uses."""

from tinypress.graph.batch_norm import batch_norm_pairs
from tinypress.graph.chains import Chain, chains, norm_readers
from tinypress.graph.forward import check_example, forward_eval, tensors_of
from tinypress.graph.trace import trace
from tinypress.graph.traced import Node, Ref, Traced, arguments

__all__ = [
    "Chain",
    "Node",
    "Ref",
    "Traced",
    "arguments",
    "batch_norm_pairs",
    "chains",
    "check_example",
    "forward_eval",
    "norm_readers",
    "tensors_of",
    "trace",
]
