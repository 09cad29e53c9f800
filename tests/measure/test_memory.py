"""Peak memory: a real file in a real process, and every way in which that can fail."""

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import tinypress.measure.memory as memory
from tinypress.errors import InputError
from tinypress.measure.memory import peak_memory

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="VmHWM is Linux's")


def network(path, width, dtype=TensorProto.FLOAT):
    """An ONNX file of one matrix product, width x width."""
    matrix = np.random.default_rng(0).standard_normal((width, width)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["f", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", dtype, ["batch", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", width])],
        [numpy_helper.from_array(matrix, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_it_is_the_files_own_memory_and_not_the_runtimes(tmp_path):
    small = peak_memory(network(tmp_path / "small.onnx", 16), [((1, 16), "float32")], 1)
    large = peak_memory(network(tmp_path / "large.onnx", 1024), [((1, 1024), "float32")], 1)
    assert small.quantity is not None
    assert large.quantity is not None
    assert 0 <= small.quantity.value < 1e6  # the runtime alone takes tens of megabytes
    assert 4 * 1024**2 <= large.quantity.value < 40 * 1024**2
    assert large.quantity.value % 4096 == 0  # whole pages
    assert "VmHWM" in large.quantity.method
    assert large.reason is None


def test_integer_inputs_are_fed_as_such(tmp_path):
    path = network(tmp_path / "indices.onnx", 8, TensorProto.INT64)
    assert peak_memory(path, [((1, 8), "int64")], 1).quantity is not None


def test_a_file_that_does_not_run_gives_the_reason_and_no_path(tmp_path):
    path = network(tmp_path / "net.onnx", 64)
    wrong = peak_memory(path, [((1, 3), "float32")], 1)
    assert wrong.quantity is None
    assert "Expected: 64" in wrong.reason
    path.write_bytes(path.read_bytes()[:500])
    truncated = peak_memory(path, [((1, 64), "float32")], 1)
    absent = peak_memory(tmp_path / "absent.onnx", [((1, 64), "float32")], 1)
    for found in (truncated, absent):
        assert found.quantity is None
        assert "did not run" in found.reason
        assert str(tmp_path) not in found.reason


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import time; time.sleep(60)", "stopped after 0.5 s"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by signal 9"),
        ("raise SystemExit(3)", "ended with code 3"),
        ("print('[]')", "without an answer"),
        ("print('{}')", "without an answer"),
    ],
)
def test_a_child_that_hangs_or_dies_is_told(tmp_path, monkeypatch, script, reason):
    child = tmp_path / "child.py"
    child.write_text(script)
    monkeypatch.setattr(memory, "CHILD", child)
    limit = 0.5 if "sleep" in script else 30.0
    found = peak_memory(tmp_path / "net.onnx", [((1, 3), "float32")], 1, timeout_seconds=limit)
    assert found.quantity is None
    assert reason in found.reason


def test_other_systems_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(memory.sys, "platform", "darwin")
    assert "only Linux" in peak_memory(tmp_path / "x.onnx", [((1, 3), "float32")], 1).reason


def test_the_child_imports_neither_torch_nor_us():
    text = memory.CHILD.read_text()
    imports = [line for line in text.splitlines() if line.startswith(("import ", "from "))]
    assert imports
    assert not any("torch" in line or "tinypress" in line for line in imports)


def test_nothing_to_run_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"peak_memory\(x\.onnx, inputs=\[\], threads=1\)"):
        peak_memory(tmp_path / "x.onnx", [], 1)
    with pytest.raises(InputError, match="threads=0"):
        peak_memory(tmp_path / "x.onnx", [((1, 3), "float32")], 0)
