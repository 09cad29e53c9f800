"""An experienced engineer: small helpers, exact thresholds, new layers built and swapped in, own arithmetic."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from numbers import Real

import torch
from torch import Tensor, nn

from tinypress_course.kit import (
    Change,
    Compressed,
    ModelSize,
    ParameterCount,
    QuantizedWeight,
    Recipe,
    Schedule,
    WeightSummary,
    pack,
    press,
    unpack,
)

NEURAL = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
WEIGHTY = (*NEURAL, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONV = [
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
]
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _network(model: object) -> nn.Module:
    if isinstance(model, nn.Module):
        return model
    raise ValueError(f"expected an nn.Module, got {type(model).__name__} {model!r}")


def _fraction(value: object, name: str, *, below_one: bool = False) -> float:
    good = isinstance(value, Real) and value >= 0 and (value < 1 if below_one else value <= 1)
    if not good:
        raise ValueError(f"{name} must be a fraction from 0 to 1{' (exclusive)' * below_one}, got {value!r}")
    return float(value)


def _finite(tensor: Tensor, where: str) -> Tensor:
    bad = ~torch.isfinite(tensor)
    if bad.any():
        raise ValueError(
            f"{where}: {int(bad.sum())} of the values are no numbers: {tensor[bad][:3].tolist()}"
        )
    return tensor


def _weight_of(layer: object) -> Tensor:
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"{type(layer).__name__} has no weight (it is {weight!r})")
    return _finite(weight.detach(), "weight")


def _own(model: nn.Module) -> Iterator[tuple[str, str, Tensor]]:
    """Layer name, kind and tensor of everything each module holds itself; shared tensors once."""
    seen: set[int] = set()
    for name, module in model.named_modules():
        for kind, tensors in (("parameter", module._parameters), ("buffer", module._buffers)):
            for tensor in tensors.values():
                if tensor is not None and id(tensor) not in seen:
                    seen.add(id(tensor))
                    yield name, kind, tensor


def _is_weight(kind: str, tensor: Tensor) -> bool:
    return kind == "parameter" and tensor.dtype.is_floating_point and tensor.dim() >= 2


class CompressionMetrics:
    """Three questions to ask a network before and after compressing it."""

    @staticmethod
    def count_parameters(model: nn.Module) -> ParameterCount:
        by_layer: dict[str, int] = defaultdict(int)
        trainable = 0
        for name, kind, tensor in _own(_network(model)):
            if kind == "parameter":
                by_layer[name] += tensor.numel()
                trainable += tensor.numel() * tensor.requires_grad
        if not by_layer:
            raise ValueError(f"{type(model).__name__} has no parameters to count")
        return ParameterCount(sum(by_layer.values()), trainable, dict(by_layer))


def calculate_model_size(model: nn.Module, *, bits: int | None = None) -> ModelSize:
    if bits is not None and (type(bits) is not int or not 2 <= bits <= 8):
        raise ValueError(f"bits must be a whole number in 2..8, got {bits!r}")
    table = []
    for layer, kind, tensor in _own(_network(model)):
        if bits is not None and _is_weight(kind, tensor):
            table.append((layer, kind, f"int{bits}", (tensor.numel() * bits + 7) // 8))
        else:
            table.append((layer, kind, repr(tensor.dtype).rpartition(".")[2], tensor.nbytes))
    if not any(kind == "parameter" for _, kind, _, _ in table):
        raise ValueError(f"{type(model).__name__} has no parameters")

    def sums(column: int) -> dict[str, int]:
        keys = {row[column] for row in table}
        return {key: sum(row[3] for row in table if row[column] == key) for key in keys}

    kinds = sums(1)
    parameters, buffers = kinds["parameter"], kinds.get("buffer", 0)
    return ModelSize(parameters + buffers, parameters, buffers, sums(2), sums(0))


CompressionMetrics.calculate_model_size = staticmethod(calculate_model_size)


def _spread(values: Tensor, near_zero: float) -> WeightSummary:
    n, mean = len(values), values.mean()
    low, high = values.aminmax()
    return WeightSummary(
        count=n,
        mean=mean.item(),
        std=math.sqrt(max(0.0, (values @ values).item() / n - mean.item() ** 2)),
        low=low.item(),
        high=high.item(),
        near_zero=int((values.abs() <= near_zero).sum()) / n,
        sparsity=int((values == 0).sum()) / n,
    )


def analyze_weight_distribution(model: nn.Module, *, near_zero: float = 1e-3) -> dict[str, WeightSummary]:
    if not near_zero >= 0:
        raise ValueError(f"near_zero must be at least 0, got {near_zero!r}")
    weights: dict[str, list[Tensor]] = {}
    for layer, kind, tensor in _own(_network(model)):
        if _is_weight(kind, tensor):
            values = _finite(tensor.detach(), f"layer {layer!r}").double().reshape(-1)
            weights.setdefault(layer, []).append(values)
    if not weights:
        raise ValueError(f"{type(model).__name__} has no weights")
    report = {layer: _spread(torch.cat(parts), near_zero) for layer, parts in weights.items()}
    report[""] = _spread(torch.cat([part for parts in weights.values() for part in parts]), near_zero)
    return report


CompressionMetrics.analyze_weight_distribution = staticmethod(analyze_weight_distribution)


def _weighty_layers(model: object) -> list[tuple[str, nn.Module]]:
    found = [(name, each) for name, each in _network(model).named_modules() if isinstance(each, WEIGHTY)]
    if not found:
        raise ValueError(f"{type(model).__name__} has no linear or convolutional layer")
    return found


def calculate_sparsity(module_or_tensor: nn.Module | Tensor) -> float:
    if isinstance(module_or_tensor, Tensor):
        tensors = [module_or_tensor]
    else:
        tensors = [layer.weight for _, layer in _weighty_layers(module_or_tensor)]
    zeros = sum(int(tensor.eq(0).sum()) for tensor in tensors)
    return zeros / (sum(tensor.numel() for tensor in tensors) or 1)


def _keep_mask(magnitudes: Tensor, remove: int) -> Tensor:
    """False for the ``remove`` smallest of a flat tensor; of equal magnitudes at the border the last go."""
    mask = torch.ones(len(magnitudes), dtype=torch.bool)
    if remove:
        border = magnitudes.sort().values[remove - 1]
        mask = magnitudes >= border
        still = remove - int((~mask).sum())
        if still:
            mask[(magnitudes == border).nonzero().squeeze(1)[-still:]] = False
    return mask


def _masked(layer: nn.Module, mask: Tensor) -> None:
    with torch.no_grad():
        layer.weight.mul_(mask.view(layer.weight.shape).to(layer.weight.dtype))


def prune_weights_by_magnitude(layer: nn.Module, sparsity: float) -> Compressed:
    fraction = _fraction(sparsity, "sparsity")
    weight = _weight_of(layer)
    thinner = copy.deepcopy(layer)
    _masked(thinner, _keep_mask(weight.abs().reshape(-1), round(fraction * weight.numel())))
    change = Change("", "sparsity", calculate_sparsity(weight), calculate_sparsity(thinner.weight))
    return Compressed(model=thinner, changes=(change,), pruned=frozenset({"weight"}))


def prune_model_by_magnitude(model: nn.Module, sparsity: float, *, scope: str = "global") -> Compressed:
    fraction = _fraction(sparsity, "sparsity")
    if scope not in ("global", "layer"):
        raise ValueError(f'scope must be "global" or "layer", got {scope!r}')
    _weighty_layers(model)
    thinner = copy.deepcopy(model)
    layers = _weighty_layers(thinner)
    flat = [_finite(layer.weight.detach(), name).abs().double().reshape(-1) for name, layer in layers]
    if scope == "global":
        together = _keep_mask(torch.cat(flat), round(fraction * sum(map(len, flat))))
        masks = together.split([len(each) for each in flat])
    else:
        masks = [_keep_mask(each, round(fraction * len(each))) for each in flat]
    changes = []
    for (name, layer), mask in zip(layers, masks, strict=True):
        was = calculate_sparsity(layer)
        _masked(layer, mask)
        changes.append(Change(name, "sparsity", was, calculate_sparsity(layer)))
    pruned = frozenset(".".join(filter(None, (name, "weight"))) for name, _ in layers)
    return Compressed(model=thinner, changes=tuple(changes), pruned=pruned)


def quantize_layer_weights(
    layer: nn.Module, bits: int = 8, *, scheme: str = "symmetric", per_channel: bool = True
) -> QuantizedWeight:
    if type(bits) is not int or not 2 <= bits <= 8:
        raise ValueError(f"bits must be a whole number in 2..8, got {bits!r}")
    if scheme not in ("symmetric", "affine"):
        raise ValueError(f'scheme must be "symmetric" or "affine", got {scheme!r}')
    weight = _weight_of(layer)
    if not weight.dtype.is_floating_point:
        raise ValueError(f"{type(layer).__name__} has no floating-point weight, it is {weight.dtype}")
    groups = weight.double().reshape(weight.shape[0] if per_channel else 1, -1)
    ends = torch.cat([groups, torch.zeros(len(groups), 1, dtype=groups.dtype)], dim=1).aminmax(dim=1)
    low, high = ends.min, ends.max
    if scheme == "symmetric":
        most = 2 ** (bits - 1) - 1
        least, width = -most, torch.maximum(-low, high) / most
    else:
        least, most = 0, (1 << bits) - 1
        width = (high - low) / most
    scale = width.float()
    scale[scale == 0] = 1.0
    zero_point = torch.zeros_like(scale) if scheme == "symmetric" else torch.round(-low / scale)
    steps = torch.round(groups / scale.double()[:, None]) + zero_point[:, None]
    return QuantizedWeight(
        packed=pack(steps.clamp(least, most).to(torch.int32), bits),
        shape=tuple(weight.shape),
        bits=bits,
        scheme=scheme,
        axis=0 if per_channel else None,
        scale=scale,
        zero_point=zero_point.to(torch.int32),
    )


def dequantize_layer_weights(quantized: QuantizedWeight) -> Tensor:
    shape = tuple(quantized.shape)
    channels = shape[0] if quantized.axis == 0 else 1
    if quantized.scale.numel() != channels or quantized.zero_point.numel() != channels:
        raise ValueError(f"{quantized.scale.numel()} scales do not fit axis {quantized.axis} of {shape}")
    signed = quantized.scheme == "symmetric"
    q = unpack(quantized.packed, quantized.bits, math.prod(shape), signed=signed).reshape(shape)
    along = (channels, *[1] * (len(shape) - 1))
    steps = q - quantized.zero_point.long().reshape(along)
    return (steps.double() * quantized.scale.double().reshape(along)).float()


class DistillationLoss(nn.Module):
    def __init__(self, temperature: float = 4.0, alpha: float = 0.7) -> None:
        super().__init__()
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature must be positive and finite, got {temperature!r}")
        self.alpha = _fraction(alpha, "alpha")
        self.temperature = float(temperature)

    def _log_probabilities(self, logits: Tensor) -> Tensor:
        raised = (logits - logits.max(dim=1, keepdim=True).values) / self.temperature
        return raised - raised.exp().sum(dim=1, keepdim=True).log()

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        if student_logits.shape != teacher_logits.shape:
            raise ValueError(f"logits {tuple(student_logits.shape)} and {tuple(teacher_logits.shape)} differ")
        taught = self._log_probabilities(teacher_logits.detach())
        said = self._log_probabilities(student_logits)
        soft = (taught.exp() * (taught - said)).sum(dim=1).mean()
        right = student_logits.gather(1, labels[:, None]).squeeze(1)
        hard = (student_logits.logsumexp(dim=1) - right).mean()
        return self.alpha * self.temperature**2 * soft + (1.0 - self.alpha) * hard


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; every mode is put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def train_with_distillation(
    student, teacher, train, validation, *, loss=None, schedule=None, after_step=None
):
    loss = DistillationLoss() if loss is None else loss
    schedule = Schedule(epochs=10, learning_rate=1e-3) if schedule is None else schedule
    model = copy.deepcopy(student).train()
    finish_step = after_step(model) if after_step is not None else None
    optimizer = torch.optim.SGD(model.parameters(), lr=schedule.learning_rate, momentum=0.9, nesterov=True)

    def judged(split) -> Tensor:
        with _evaluating(teacher):
            wanted = teacher(*split.inputs)
        value = loss(model(*split.inputs), wanted, split.targets)
        if not math.isfinite(value.item()):
            raise ValueError(f"training stopped: the loss is {value.item()}")
        return value

    def validated() -> float:
        """The loss on validation in batches, each weighed by its size."""
        total = 0.0
        with _evaluating(model):
            for rows in torch.arange(len(validation)).split(schedule.batch_size):
                total += judged(validation.take(rows)).item() * len(rows)
        return total / len(validation)

    shuffle = torch.Generator().manual_seed(schedule.seed)
    best, least = copy.deepcopy(model), math.inf
    for _ in range(schedule.epochs):
        borders = [*range(0, len(train), schedule.batch_size), len(train)]
        order = torch.randperm(len(train), generator=shuffle)
        for start, stop in pairwise(borders):
            value = judged(train.take(order[start:stop]))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            if finish_step is not None:
                finish_step()
        if (now := validated()) < least:
            best, least = copy.deepcopy(model), now
    return Compressed(model=best.eval())


def compute_neuron_importance(layer, method="l2", *, activations=None, seed=0):
    if not isinstance(layer, NEURAL):
        raise ValueError(f"{type(layer).__name__} has no output neurons")
    incoming = layer.weight.detach().reshape(layer.weight.shape[0], -1)
    if method == "random":
        return torch.empty(len(incoming)).uniform_(generator=torch.Generator().manual_seed(seed))
    if method == "activation":
        if activations is None or activations.dim() < 2 or activations.shape[1] != len(incoming):
            shape = None if activations is None else tuple(activations.shape)
            raise ValueError(f"activations must be [N, {len(incoming)}, ...], got {shape}")
        others = [axis for axis in range(activations.dim()) if axis != 1]
        scores = activations.detach().abs().mean(dim=others)
    elif method in ("l1", "l2"):
        scores = incoming.norm(p=int(method[1]), dim=1)
    elif method == "variance":
        scores = (incoming - incoming.mean(dim=1, keepdim=True)).square().mean(dim=1)
    else:
        raise ValueError(f"method must be l1, l2, variance, activation or random, got {method!r}")
    if scores.isnan().any():
        raise ValueError(f"importance {method!r} has a nan: {scores.tolist()}")
    return scores


def _like(old: nn.Module, sizes: dict[str, int], cuts: dict[str, tuple[int, Tensor]]) -> nn.Module:
    """A new layer of the kind of ``old`` with other sizes, its tensors cut along an axis to some places."""
    names = CONV
    if isinstance(old, nn.Linear):
        names = ("in_features", "out_features")
    elif isinstance(old, NORMS):
        names = ("num_features", "eps", "momentum", "affine", "track_running_stats")
    options = {name: getattr(old, name) for name in names} | sizes
    if not isinstance(old, NORMS):
        options["bias"] = old.bias is not None
    new = type(old)(**options)
    state = old.state_dict()
    for key, (axis, places) in cuts.items():
        if key in state:
            state[key] = state[key].index_select(axis, places)
    first = next(iter(state.values()))
    new.to(dtype=first.dtype).load_state_dict(state)
    for key, parameter in new.named_parameters():
        parameter.requires_grad_(old.get_parameter(key).requires_grad)
    return new.train(old.training)


def _swap(model: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)


def prune_layer_neurons(model, layer, ratio, example_inputs, *, importance="l2", calibration=None, seed=0):
    share = _fraction(ratio, "ratio", below_one=True)
    chain = [(name, each) for name, each in model.named_modules() if not any(True for _ in each.children())]
    place = next((i for i, (name, _) in enumerate(chain) if name == layer), None)
    if place is None:
        raise ValueError(f"no layer {layer!r} among {[name for name, _ in chain]}")
    target = chain[place][1]
    if not isinstance(target, NEURAL):
        raise ValueError(f"layer {layer!r} is a {type(target).__name__}, which has no neurons")
    readers = [i for i in range(place + 1, len(chain)) if isinstance(chain[i][1], NEURAL)]
    if not readers:
        raise ValueError(f"layer {layer!r} is the last: its neurons are the classes")
    reader = readers[0]
    for i in (place, reader):
        if getattr(chain[i][1], "groups", 1) != 1:
            raise ValueError(f"layer {chain[i][0]!r} has {chain[i][1].groups} groups, only 1 works")

    heard: list[Tensor] = []
    if importance == "activation" and calibration is not None:
        probe = copy.deepcopy(model)
        probe.get_submodule(layer).register_forward_hook(lambda _m, _i, out: heard.append(out))
        with _evaluating(probe):
            probe(*calibration)
    scores = compute_neuron_importance(target, importance, activations=heard[0] if heard else None, seed=seed)
    width = len(scores)
    left = max(1, width - round(share * width))
    keep = scores.argsort(descending=True, stable=True)[:left].sort().values

    def places(total: int) -> Tensor:
        each = total // width
        return (keep[:, None] * each + torch.arange(each)).flatten()

    smaller = copy.deepcopy(model)
    linear = isinstance(target, nn.Linear)
    cuts = {"weight": (0, keep), "bias": (0, keep)}
    _swap(smaller, layer, _like(target, {"out_features" if linear else "out_channels": left}, cuts))
    for name, each in chain[place + 1 : reader]:
        if isinstance(each, NORMS):
            stay = places(each.num_features)
            cuts = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (0, stay))
            _swap(smaller, name, _like(each, {"num_features": len(stay)}, cuts))
    name, each = chain[reader]
    size = "in_features" if isinstance(each, nn.Linear) else "in_channels"
    stay = places(getattr(each, size))
    _swap(smaller, name, _like(each, {size: len(stay)}, {"weight": (1, stay)}))
    with _evaluating(smaller):
        smaller(*example_inputs)
    return Compressed(model=smaller, changes=(Change(layer, "neurons", width, left),))


def compare_compression_techniques(task, out, *, engine=None, seed: int = 0):
    heal = {"technique": "recover"}
    steps = {
        "fp32": (),
        "magnitude-80": ({"technique": "magnitude", "sparsity": 0.8, "score": "magnitude"}, heal),
        "random-80": ({"technique": "magnitude", "sparsity": 0.8, "score": "random"}, heal),
        "int8": ({"technique": "quantize", "bits": 8},),
        "narrow": ({"technique": "shrink", "ratio": 0.25}, heal),
        "narrower": ({"technique": "shrink", "ratio": 0.5}, heal),
        "student": ({"technique": "student", "ratio": 0.5}, {"technique": "distill"}),
        "student-alone": ({"technique": "student", "ratio": 0.5}, heal),
    }
    steps |= {f"{name}-int8": (*steps[name], *steps["int8"]) for name in ("magnitude-80", "narrower")}
    control_of = {"random-80": "magnitude-80", "student-alone": "student"}
    archived = {"magnitude-80", "random-80", "magnitude-80-int8"}
    recipes = []
    for name, each in steps.items():
        role = "control" if name in control_of else "candidate" if each else "baseline"
        ship = ("onnx", "archive") if name in archived else ("onnx",)
        recipes.append(Recipe(name=name, steps=each, role=role, control_of=control_of.get(name), ship=ship))
    return press(task, recipes, out, engine=engine, seed=seed)


MARGIN = 0.15
MOST_ZEROS = 0.9


def _archive_bytes(float_bytes: float, sparsity: float) -> float:
    """A bit for every place, and eight for every weight that is kept."""
    places = float_bytes / 4
    return (places + 8 * places * (1 - sparsity)) / 8


def design_pipeline(budget_bytes: int, float_bytes: int) -> Recipe:
    for name, value in (("budget_bytes", budget_bytes), ("float_bytes", float_bytes)):
        if not value > 0:
            raise ValueError(f"{name} must be positive, got {value!r}")
    room = budget_bytes - MARGIN * budget_bytes
    if room >= float_bytes:
        return Recipe(name="pipeline-float", about="fits as it is")
    steps = [{"technique": "quantize", "bits": 8}]
    if room >= float_bytes * 8 / 32:
        return Recipe(name="pipeline-int8", steps=tuple(steps))
    heal = {"technique": "recover"}
    percents = (p / 100 for p in range(1, round(100 * MOST_ZEROS) + 1))
    sparsity = next((s for s in percents if _archive_bytes(float_bytes, s) <= room), MOST_ZEROS)
    steps[:0] = [{"technique": "magnitude", "sparsity": sparsity}, heal]
    full = _archive_bytes(float_bytes, sparsity)
    if full > room:
        low, high = 0.0, 1.0  # the least ratio that fits, by halving the interval
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (low, middle) if (1 - middle) ** 2 * full <= room else (middle, high)
        steps[:0] = [{"technique": "shrink", "ratio": high}, heal]
    return Recipe(name="pipeline-archive", steps=tuple(steps), ship=("archive",))
