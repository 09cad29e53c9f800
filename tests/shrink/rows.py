"""One row of the table of supported models: everything that a pruned network has to be able to do."""

from __future__ import annotations

import copy
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn
from zoo import build

from tinypress.archive import write_archive
from tinypress.facts import Compressed
from tinypress.graph import forward_eval, tensors_of, trace
from tinypress.shrink import prune_structured
from tinypress.shrink.groups import survey

READER = Path(__file__).with_name("reopen.py")


@dataclass(frozen=True)
class Row:
    """What came out: parameters before, after one cut and after two, how many groups, and what stayed."""

    name: str
    ratio: float
    groups: int
    parameters: tuple[int, int, int]
    left: tuple[str, ...]


def try_row(name: str, ratio: float, folder: Path, *, onnx: bool = True) -> Row:
    """Prune ``name`` twice; after each cut run it, train a step, keep it for ``reopened``; at last export it."""
    model, inputs = build(name)
    before = copy.deepcopy(model.state_dict())
    sizes = [_parameters(model)]
    groups = len(survey(trace(model, inputs), model, exact=False).groups)
    current: nn.Module = model
    left: tuple[str, ...] = ()
    for turn in (1, 2):
        done = prune_structured(current, inputs, ratio=ratio, seed=turn)
        assert type(done.model) is type(model)
        if turn == 1:  # of what is left then, a single head for example, something may have to stay
            assert not [note for note in done.notes if note.code in ("TP301", "TP302")], done.notes
            left = tuple(note.layer or "" for note in done.notes if note.code == "TP303")
        assert _shapes(done.model, inputs) == _shapes(model, inputs)
        assert _parameters(done.model) < sizes[-1]
        sizes.append(_parameters(done.model))
        _keep(folder / f"{name}.{turn}", done, inputs)
        _train_a_step(done.model, inputs)
        current = done.model
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    if onnx:
        _export(current, inputs, folder / f"{name}.onnx")
    return Row(name, ratio, groups, (sizes[0], sizes[1], sizes[2]), left)


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _shapes(model: nn.Module, inputs: tuple[Tensor, ...]) -> list[tuple[int, ...]]:
    return [tuple(output.shape) for output in tensors_of(forward_eval(model, inputs))]


def _train_a_step(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    trained = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(trained.parameters(), 0.01)
    sum(output.square().mean() for output in tensors_of(trained(*inputs))).backward()
    gradients = [parameter.grad for parameter in trained.parameters() if parameter.grad is not None]
    assert gradients
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
    optimizer.step()
    assert any(
        not torch.equal(one, other)
        for one, other in zip(trained.parameters(), model.parameters(), strict=True)
    )


def _export(model: nn.Module, inputs: tuple[Tensor, ...], path: Path) -> None:
    """Written as ONNX in float32, the network gives in ONNX Runtime what it gives here."""
    single = copy.deepcopy(model).float().eval()
    given = tuple(x.float() if x.is_floating_point() else x for x in inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(single, given, path, dynamo=True, verbose=False)
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    fed = {put.name: x.numpy() for put, x in zip(session.get_inputs(), given, strict=True)}
    due = tensors_of(forward_eval(single, given))
    for got, want in zip(session.run(None, fed), due, strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-3, atol=1e-4 * float(want.abs().max()))


def _keep(stem: Path, done: Compressed, inputs: tuple[Tensor, ...]) -> None:
    write_archive(stem.with_name(stem.name + ".archive.safetensors"), done)
    torch.save(tensors_of(forward_eval(done.model, inputs)), stem.with_name(stem.name + ".outputs.pt"))


def reopened(folder: Path) -> None:
    """In a fresh process every kept network is opened on its stock one, and returns what it returned here."""
    ran = subprocess.run([sys.executable, READER, folder], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
