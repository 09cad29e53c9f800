"""What a teacher says about fixed data, asked once and kept on disk.

The file is named by a hash of the teacher (weights and code), the data, the layers and what computed them. A file that
is damaged or of something else is made again.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tinypress.distill.features import captured, require_captured
from tinypress.errors import ModelError
from tinypress.train.sealed import hash_of, read_sealed, write_sealed


def ask_teacher(
    teacher: nn.Module,
    inputs: tuple[Tensor, ...],
    layers: Sequence[str] = (),
    *,
    cache: Path | None = None,
    batch_size: int = 512,
) -> tuple[Tensor, ...]:
    """The teacher's outputs [N, ...] for all samples, then those of its ``layers``, in evaluation mode.

    It answers on the device that it is on; the answers are where ``inputs`` are. Its mode is put back afterwards.

    Args:
        cache: folder that keeps the answers; by default they are not kept.

    Raises:
        InputError: there is no such layer.
        ModelError: a layer does not run exactly once in a forward pass, or gives nothing a sample.
        RunError: the folder cannot be written.
    """
    if cache is None:
        return _ask(teacher, inputs, layers, batch_size)
    key = _key(teacher, inputs, layers, batch_size)
    path = cache / f"teacher-{key[:32]}.safetensors"
    found = read_sealed(path)
    if found is not None and found[1] == {"key": key}:
        return tuple(found[0][str(place)] for place in range(1 + len(layers)))
    answers = _ask(teacher, inputs, layers, batch_size)
    write_sealed(path, {str(place): x for place, x in enumerate(answers)}, {"key": key})
    return answers


@torch.no_grad()
def _ask(
    teacher: nn.Module, inputs: tuple[Tensor, ...], layers: Sequence[str], batch_size: int
) -> tuple[Tensor, ...]:
    call = f"ask_teacher({type(teacher).__name__}, {len(inputs[0])} samples)"
    device = _device_of(teacher, inputs)
    modes = [(module, module.training) for module in teacher.modules()]
    teacher.eval()
    rows: list[tuple[Tensor, ...]] = []
    try:
        with captured(teacher, layers) as found:
            for start in range(0, len(inputs[0]), batch_size):
                part = [x[start : start + batch_size].to(device) for x in inputs]
                output = teacher(*part)
                require_captured(call, found, layers)
                row = (output, *(found[name] for name in layers))
                for name, x in zip(("its output", *layers), row, strict=True):
                    if not isinstance(x, Tensor) or x.dim() == 0 or len(x) != len(part[0]):
                        raise ModelError(
                            call, f"{name!r} gives no row a sample", "Name a layer with the batch first"
                        )
                rows.append(tuple(x.to(inputs[0].device) for x in row))
    finally:
        for module, training in modes:
            module.training = training
    return tuple(torch.cat(column) for column in zip(*rows, strict=True))


def _key(teacher: nn.Module, inputs: tuple[Tensor, ...], layers: Sequence[str], batch_size: int) -> str:
    """A hash of everything that the answers depend on to the last bit."""
    tensors = {**dict(teacher.named_parameters()), **dict(teacher.named_buffers())}
    tensors |= {f"input {place}": x for place, x in enumerate(inputs)}
    facts = {
        "teacher": repr(teacher),
        "code": [_source(kind) for kind in dict.fromkeys(type(module) for module in teacher.modules())],
        "layers": list(layers),
        "batch_size": batch_size,
        "torch": f"{torch.__version__}, {torch.get_num_threads()} threads",
    }
    device = _device_of(teacher, inputs).type
    if device != "cpu":
        facts["device"] = device
    return hash_of(facts, tensors)


def _device_of(teacher: nn.Module, inputs: tuple[Tensor, ...]) -> torch.device:
    first = next(teacher.parameters(), None)
    return inputs[0].device if first is None else first.device


def _source(kind: type) -> str:
    if kind.__module__.startswith("torch."):
        return kind.__qualname__
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return f"{kind.__module__}.{kind.__qualname__}"
