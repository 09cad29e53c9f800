"""What quantizing a layer's weights, and reading them back, promise."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from tinypress import QuantizedWeight, dequantize_layer_weights, quantize_layer_weights
from tinypress_course.checks.base import Answer, Case, Check, Draw
from tinypress_course.checks.judging import close, number, refuses, same, seen, short
from tinypress_course.kit import unpack
from tinypress_course.models import Plain, layer_data, layer_from, linear

QUANTIZE, BACK = "quantize_layer_weights", "dequantize_layer_weights"


def _case(
    weight: Tensor, bits: int, scheme: str = "symmetric", per_channel: bool = True, name: str = ""
) -> Case:
    inputs = {"layer": linear(weight), "bits": bits, "scheme": scheme, "per_channel": per_channel}
    shown = name or f"Linear {short(weight)}"
    return Case(inputs, f"{QUANTIZE}({shown}, {bits}, scheme={scheme!r}, per_channel={per_channel})")


def _symmetric(draw: Draw) -> Iterator[Case]:
    yield _case(torch.tensor([[1.0, -0.5]]), 2)
    yield _case(torch.tensor([[7.0, -3.4, 2.6]]), 4)
    yield _case(torch.tensor([[-127.0, 63.5, 0.4, 1.0]]), 8)
    for bits in (8, 5, 3):
        yield _case(draw.normal(6, 9, salt=bits), bits)


def _rounding(draw: Draw) -> Iterator[Case]:
    yield _case(torch.tensor([[7.0, 0.5, 1.5, 2.5, -0.5, -1.5]]), 4)
    yield _case(torch.tensor([[7.0, 0.6, -0.6, 1.9, -1.9]]), 4)


def _affine(draw: Draw) -> Iterator[Case]:
    yield _case(torch.tensor([[-1.0, 2.0]]), 2, "affine")
    yield _case(torch.tensor([[-4.0, 0.0, 11.0]]), 4, "affine")
    for bits in (8, 6, 3):
        yield _case(draw.normal(5, 7, salt=bits) + 0.3, bits, "affine")


def _one_sided(draw: Draw) -> Iterator[Case]:
    yield _case(torch.tensor([[10.0, 12.0]]), 4, "affine")
    yield _case(torch.tensor([[-10.0, -12.0]]), 4, "affine")
    yield _case(draw.normal(3, 8).abs() + 1, 8, "affine")


def _zeros_stay(draw: Draw) -> Iterator[Case]:
    pruned = torch.tensor([[-1.0, 0.0, 0.0, 3.0]])
    for bits in (2, 4, 8):
        yield _case(pruned, bits, "affine")
    weight = draw.normal(8, 16)
    for scheme in ("affine", "symmetric"):
        yield _case(weight.masked_fill(weight.abs() < 0.8, 0.0), 8, scheme, name="a pruned Linear")


def _whole_layer(draw: Draw) -> Iterator[Case]:
    for scheme in ("symmetric", "affine"):
        yield _case(torch.tensor([[1.0, -1.0], [100.0, 51.0]]), 8, scheme, per_channel=False)
        yield _case(draw.normal(4, 6), 6, scheme, per_channel=False)


def _channels(draw: Draw) -> Iterator[Case]:
    yield _case(torch.tensor([[1.0, -1.0], [100.0, 51.0]]), 8)
    yield _case(draw.normal(2, 5) * torch.tensor([[1.0], [1000.0]]), 4)
    layer = nn.Conv1d(2, 3, 5)
    layer.load_state_dict({"weight": draw.normal(3, 2, 5), "bias": draw.normal(3)})
    yield Case({"layer": layer_data(layer), "bits": 8}, f"{QUANTIZE}(a Conv1d with 3 channels, 8)")


def _constant(draw: Draw) -> Iterator[Case]:
    for scheme in ("symmetric", "affine"):
        yield _case(torch.zeros(1, 2), 8, scheme)
        yield _case(torch.full((1, 3), 0.25), 8, scheme)
        yield _case(torch.tensor([[0.0, 0.0], [1.0, -2.0]]), 4, scheme)
    yield _case(torch.tensor([[5.0]]), 8)
    for scheme in ("symmetric", "affine"):
        yield _case(torch.tensor([[1e-9, -3e-9]]), 8, scheme)


def _hidden(draw: Draw) -> Iterator[Case]:
    for salt, bits in enumerate((2, 3, 4, 5, 6, 7, 8)):
        weight = draw.normal(3 + salt, 11, salt=50 + salt) * (1 + salt) + 0.2 * salt
        for scheme in ("symmetric", "affine"):
            yield _case(weight, bits, scheme, per_channel=bool(salt % 2), name="another Linear")


def _quantized_right(case: Case, answer: Answer) -> str | None:
    inputs = case.inputs
    options = {name: inputs[name] for name in ("scheme", "per_channel") if name in inputs}
    right = quantize_layer_weights(layer_from(inputs["layer"]), inputs["bits"], **options)
    for name in ("bits", "scheme", "axis"):
        if answer[name] != getattr(right, name):
            return f"{name} is {answer[name]!r}"
    if answer["shape"] != list(right.shape):
        return f"shape is {answer['shape']}"
    for name in ("scale", "zero_point"):
        got, due = answer[name], getattr(right, name)
        if not isinstance(got, Tensor) or got.shape != due.shape:
            return f"{name} is not one number for each channel (or one for all)"
        if not close(got, due, 1e-5):
            return f"{name} is {short(got)} for the weights {short(inputs['layer']['state']['weight'])}"
    if answer["scale"].dtype != torch.float32 or answer["zero_point"].dtype != torch.int32:
        return f"scale is {answer['scale'].dtype} and zero_point {answer['zero_point'].dtype}"
    return _integers_right(case, answer, right)


def _integers_right(case: Case, answer: Answer, right: QuantizedWeight) -> str | None:
    packed = answer["packed"]
    if not isinstance(packed, Tensor) or packed.dtype != torch.uint8 or packed.shape != right.packed.shape:
        return f"packed is not a row of {right.packed.numel()} bytes"
    if torch.equal(packed, right.packed):
        return None
    signed, count = right.scheme == "symmetric", math.prod(right.shape)
    got, due = (unpack(p, right.bits, count, signed=signed) for p in (packed, right.packed))
    weight = case.inputs["layer"]["state"]["weight"].flatten()
    scale = right.scale.view(-1, 1).expand(-1, count // right.scale.numel()).flatten()
    rest = (weight / scale).frac().abs()
    differs = (got != due) & ~((got - due).abs().le(1) & ((rest - 0.5).abs() < 1e-4) & (rest != 0.5))
    if not bool(differs.any()):  # the last bit of a scale may push a weight over the middle between two steps
        return None
    at = int(differs.nonzero()[0])
    return f"the weight {number(weight[at].item())} became the whole number {int(got[at])}"


def _comes_back(case: Case, answer: Answer) -> str | None:
    back = _restored(answer)
    weight = case.inputs["layer"]["state"]["weight"]
    if not bool(torch.isfinite(back).all()):
        return "NaN or infinity comes back"
    lost = (weight == 0) & (back != 0)
    if bool(lost.any()):
        return f"a weight that is 0 comes back as {number(back[lost][0].item())}"
    return None


def _restored(answer: Answer) -> Tensor:
    fields = {name: answer[name] for name in ("packed", "bits", "scheme", "axis", "scale", "zero_point")}
    return dequantize_layer_weights(QuantizedWeight(shape=tuple(answer["shape"]), **fields))


def _layer_kept(case: Case, answer: Answer) -> str | None:
    kept = same(answer["input_after"]["state"], case.inputs["layer"]["state"])
    return None if kept else "the layer that came in is not as it was"


def _bad_bits(draw: Draw) -> Iterator[Case]:
    for bits in (1, 9, 0, 4.5):
        yield _case(torch.tensor([[1.0, -1.0]]), bits)  # type: ignore[arg-type]


def _bits_refused(case: Case, answer: Answer) -> str | None:
    return refuses(str(case.inputs["bits"]))(case, answer)


def _bad_scheme(draw: Draw) -> Iterator[Case]:
    yield _case(torch.tensor([[1.0, -1.0]]), 8, "logarithmic")


def _bad_weights(draw: Draw) -> Iterator[Case]:
    for value in (math.nan, math.inf):
        yield Case(
            {"layer": linear(torch.tensor([[1.0, value]])), "bits": 8},
            f"{QUANTIZE}(Linear [[1, {value}]], 8)",
        )


def _no_layer(draw: Draw) -> Iterator[Case]:
    yield Case({"layer": "conv1", "bits": 8}, f"{QUANTIZE}('conv1', 8)")
    yield Case({"layer": layer_data(nn.ReLU()), "bits": 8}, f"{QUANTIZE}(a ReLU, 8)")


def _quantized(weight: Tensor, bits: int, scheme: str, per_channel: bool) -> Plain:
    done = quantize_layer_weights(layer_from(linear(weight)), bits, scheme=scheme, per_channel=per_channel)  # type: ignore[arg-type]
    return {**vars(done), "shape": list(done.shape)}


def _reading(draw: Draw) -> Iterator[Case]:
    def case(weight: Tensor, bits: int, scheme: str, per_channel: bool) -> Case:
        shown = f"{BACK}({short(weight)} in {bits} bits, {scheme}, per_channel={per_channel})"
        return Case({"quantized": _quantized(weight, bits, scheme, per_channel)}, shown)

    yield case(torch.tensor([[7.0, -3.0]]), 4, "symmetric", True)
    yield case(torch.tensor([[-5.0, 10.0]]), 4, "affine", True)
    yield case(torch.tensor([[1.0, -1.0], [100.0, 51.0]]), 8, "symmetric", True)
    yield case(torch.tensor([[1.0, -1.0], [100.0, 51.0]]), 8, "affine", False)
    yield case(torch.tensor([[250.0, 10.0, -3.0]]), 8, "affine", True)
    yield case(torch.tensor([[250.0, 10.0, 3.0]]), 8, "affine", True)
    for bits in (2, 3, 5, 8):
        yield case(draw.normal(4, 7, salt=bits), bits, "affine" if bits % 2 else "symmetric", bits > 3)


def _reading_hidden(draw: Draw) -> Iterator[Case]:
    for salt, bits in enumerate((3, 6, 7, 8)):
        weight = draw.normal(5, 3 + salt, 2, salt=salt).flatten(1)
        given = _quantized(weight, bits, "affine" if salt % 2 else "symmetric", salt > 1)
        yield Case({"quantized": given}, f"{BACK}(other integers of {bits} bits)")


def _read_right(case: Case, answer: Answer) -> str | None:
    given = case.inputs["quantized"]
    right = dequantize_layer_weights(QuantizedWeight(**{**given, "shape": tuple(given["shape"])}))
    got = answer["weight"]
    if not isinstance(got, Tensor) or got.shape != right.shape:
        return f"the weights do not come back in the shape {list(right.shape)}"
    if got.dtype != torch.float32:
        return f"the weights come back as {got.dtype}"
    if close(got, right, 1e-6):
        return None
    return f"{short(got)} comes back, which is not what the whole numbers stand for"


def _misfit(draw: Draw) -> Iterator[Case]:
    given = _quantized(torch.ones(3, 2), 8, "symmetric", True)
    yield Case({"quantized": {**given, "scale": torch.ones(2)}}, f"{BACK}(3 channels and 2 scales)")
    one = {"scale": torch.ones(1), "zero_point": torch.zeros(1, dtype=torch.int32)}
    yield Case({"quantized": {**given, **one}}, f"{BACK}(3 channels and 1 scale)")


CHECKS = (
    Check(QUANTIZE, "spreads a symmetric range over the whole numbers", _symmetric, seen(_quantized_right)),
    Check(QUANTIZE, "rounds to the nearest whole number", _rounding, seen(_quantized_right)),
    Check(QUANTIZE, "spreads an affine range over the whole numbers", _affine, seen(_quantized_right)),
    Check(QUANTIZE, "widens a range that lies on one side of zero", _one_sided, seen(_quantized_right)),
    Check(QUANTIZE, "brings zeros back as exactly zero", _zeros_stay, seen(_comes_back)),
    Check(QUANTIZE, "gives every output channel its own scale", _channels, seen(_quantized_right)),
    Check(
        QUANTIZE,
        "uses one scale for the whole layer where it is asked to",
        _whole_layer,
        seen(_quantized_right),
    ),
    Check(
        QUANTIZE, "stands weights that are all equal, all zero, or tiny", _constant, seen(_quantized_right)
    ),
    Check(
        QUANTIZE,
        "does so for other layers and every number of bits",
        _hidden,
        seen(_quantized_right),
        hidden=True,
    ),
    Check(QUANTIZE, "leaves the layer that came in as it was", _symmetric, seen(_layer_kept)),
    Check(QUANTIZE, "refuses bits outside 2..8", _bad_bits, _bits_refused),
    Check(QUANTIZE, "refuses another scheme", _bad_scheme, refuses("logarithmic")),
    Check(QUANTIZE, "refuses NaN and infinity", _bad_weights, refuses()),
    Check(QUANTIZE, "refuses what has no weight", _no_layer, refuses()),
    Check(BACK, "gives the weights that the whole numbers stand for", _reading, seen(_read_right)),
    Check(BACK, "does so for others", _reading_hidden, seen(_read_right), hidden=True),
    Check(BACK, "refuses scales that do not fit the channels", _misfit, refuses()),
)
