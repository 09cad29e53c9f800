"""Right solutions, written by others from the statements alone, pass every check: none asks for one way to write it."""

import functools
import runpy
from pathlib import Path

import pytest

from tinypress_course.checks.all import ALL_CHECKS
from tinypress_course.feedback import as_text, evaluate

FILES = sorted(path.stem for path in (Path(__file__).parent / "alternatives").glob("*.py"))
FUNCTIONS = (
    "count_parameters",
    "calculate_model_size",
    "analyze_weight_distribution",
    "calculate_sparsity",
    "prune_weights_by_magnitude",
    "prune_model_by_magnitude",
    "quantize_layer_weights",
    "dequantize_layer_weights",
    "DistillationLoss",
    "train_with_distillation",
    "compute_neuron_importance",
    "prune_layer_neurons",
    "compare_compression_techniques",
    "design_pipeline",
)


@functools.cache
def load_namespace(file: str) -> dict:
    return runpy.run_path(str(Path(__file__).parent / "alternatives" / f"{file}.py"), run_name="learner")


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("file", FILES)
def test_a_right_solution_keeps_every_promise(file, function):
    if not any(check.function == function for check in ALL_CHECKS):
        pytest.skip(f"{function} has no checks yet")
    for seed in (0, 1):
        feedback = evaluate(function, load_namespace(file), seed, hidden=True)
        assert feedback is None, f"seed {seed}:\n{as_text(feedback)}"
