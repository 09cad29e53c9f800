"""Compact and vectorised: topk, kthvalue, scatter, einsum, everything a tensor, few statements."""

import copy
from collections import Counter

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

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


def _require(condition, message):
    if not condition:
        raise ValueError(message)


def _weights(model):
    return [(n, p.detach()) for n, p in model.named_parameters() if p.is_floating_point() and p.ndim > 1]


class CompressionMetrics:
    @staticmethod
    def count_parameters(model):
        _require(isinstance(model, nn.Module), f"not a network: {model!r}")
        own = Counter()
        for name, p in model.named_parameters():
            own[name.rpartition(".")[0]] += p.numel()
        total = sum(own.values())
        _require(total, f"{model} has no parameters")
        return ParameterCount(total, sum(p.numel() for p in model.parameters() if p.requires_grad), dict(own))


def calculate_model_size(model, *, bits=None):
    _require(isinstance(model, nn.Module), f"not a network: {model!r}")
    _require(bits is None or bits in range(2, 9), f"bits {bits!r} is outside 2..8")
    _require(any(True for _ in model.parameters()), f"{model} has no parameters")
    dtypes, layers, kinds = Counter(), Counter(), Counter()
    tensors = [(n, t, "p") for n, t in model.named_parameters()] + [
        (n, t, "b") for n, t in model.named_buffers()
    ]
    for name, t, kind in tensors:
        small = bits and kind == "p" and t.is_floating_point() and t.ndim > 1
        size = -(-t.numel() * bits // 8) if small else t.nbytes
        dtypes[f"int{bits}" if small else str(t.dtype).removeprefix("torch.")] += size
        layers[name.rpartition(".")[0]] += size
        kinds[kind] += size
    return ModelSize(sum(kinds.values()), kinds["p"], kinds["b"], dtypes, layers)


CompressionMetrics.calculate_model_size = staticmethod(calculate_model_size)


def analyze_weight_distribution(model, *, near_zero=1e-3):
    _require(isinstance(model, nn.Module), f"not a network: {model!r}")
    _require(near_zero >= 0, f"near_zero {near_zero} is below 0")
    groups = {}
    for name, w in _weights(model):
        _require(w.isfinite().all(), f"{name} holds {w[~w.isfinite()][:1].tolist()}")
        groups.setdefault(name.rpartition(".")[0], []).append(w.flatten())
    _require(groups, f"{model} has no weights")

    def summary(w):
        d = w.double()
        return WeightSummary(
            w.numel(),
            d.mean().item(),
            d.std(correction=0).item(),
            w.min().item(),
            w.max().item(),
            (w.abs() <= near_zero).double().mean().item(),
            (w == 0).double().mean().item(),
        )

    flat = {name: torch.cat(ws) for name, ws in groups.items()}
    return {"": summary(torch.cat([*flat.values()]))} | {n: summary(w) for n, w in flat.items() if n}


CompressionMetrics.analyze_weight_distribution = staticmethod(analyze_weight_distribution)


def _prunable(model):
    kinds = (nn.Linear, nn.modules.conv._ConvNd)
    modules = model.named_modules() if isinstance(model, nn.Module) else ()
    return [(name, m) for name, m in modules if isinstance(m, kinds)]


def calculate_sparsity(module_or_tensor):
    if torch.is_tensor(module_or_tensor):
        flat = module_or_tensor.flatten()
    else:
        found = _prunable(module_or_tensor)
        _require(found, f"no linear or convolutional weights in {module_or_tensor!r}")
        flat = torch.cat([m.weight.flatten() for _, m in found])
    return 1 - torch.count_nonzero(flat).item() / flat.numel() if flat.numel() else 0.0


def _zero_smallest(flat, sparsity):
    """A copy of flat with round(sparsity * n) smallest magnitudes replaced by 0."""
    smallest = flat.abs().topk(round(sparsity * flat.numel()), largest=False, sorted=False).indices
    return flat.scatter(0, smallest, 0.0)


def prune_weights_by_magnitude(layer, sparsity):
    _require(
        isinstance(sparsity, float | int) and 0 <= sparsity <= 1, f"sparsity {sparsity!r} is outside 0..1"
    )
    w = getattr(layer, "weight", None)
    _require(torch.is_tensor(w), f"{layer!r} has no weight")
    _require(w.isfinite().all(), f"weights {w[~w.isfinite()].tolist()[:3]} are not finite")
    model = copy.deepcopy(layer)
    model.weight.data = _zero_smallest(w.detach().flatten(), sparsity).view(w.shape)
    change = Change("", "sparsity", calculate_sparsity(w), calculate_sparsity(model.weight))
    return Compressed(model, (change,), pruned=frozenset(["weight"]))


def prune_model_by_magnitude(model, sparsity, *, scope="global"):
    _require(
        isinstance(sparsity, float | int) and 0 <= sparsity <= 1, f"sparsity {sparsity!r} is outside 0..1"
    )
    _require(scope in {"global", "layer"}, f"scope {scope!r} is neither 'global' nor 'layer'")
    new = copy.deepcopy(model)
    names, layers = zip(*_prunable(new), strict=True) if _prunable(new) else ((), ())
    _require(layers, f"no linear or convolutional layer in {model!r}")
    flats = [m.weight.detach().flatten() for m in layers]
    everything = torch.cat(flats)
    _require(
        everything.isfinite().all(),
        f"weights {everything[~everything.isfinite()].tolist()[:3]} are not finite",
    )
    if scope == "layer":
        pruned = [_zero_smallest(flat, sparsity) for flat in flats]
    elif k := round(sparsity * everything.numel()):
        border = everything.abs().kthvalue(k).values
        below, at = everything.abs() < border, everything.abs() == border
        gone = below | (at & (at.cumsum(0) <= k - below.sum()))
        pruned = everything.masked_fill(gone, 0).split([flat.numel() for flat in flats])
    else:
        pruned = flats
    was = [calculate_sparsity(m) for m in layers]
    for m, flat in zip(layers, pruned, strict=True):
        m.weight.data = flat.to(m.weight.dtype).view_as(m.weight)
    changes = (
        Change(n, "sparsity", w, calculate_sparsity(m)) for n, w, m in zip(names, was, layers, strict=True)
    )
    return Compressed(new, tuple(changes), pruned=frozenset(f"{n}.weight".lstrip(".") for n in names))


def quantize_layer_weights(layer, bits=8, *, scheme="symmetric", per_channel=True):
    _require(isinstance(bits, int) and 2 <= bits <= 8, f"bits {bits!r} is outside 2..8")
    _require(scheme in {"symmetric", "affine"}, f"scheme {scheme!r} is neither 'symmetric' nor 'affine'")
    w = getattr(layer, "weight", None)
    _require(torch.is_tensor(w) and w.is_floating_point(), f"{layer!r} has no floating-point weight")
    _require(w.isfinite().all(), f"weights {w[~w.isfinite()].tolist()[:3]} are not finite")
    rows = w.detach().float().flatten(1) if per_channel else w.detach().float().reshape(1, -1)
    if scheme == "symmetric":
        least, most = 1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1
        scale = rows.abs().amax(1, keepdim=True) / most
    else:
        least, most = 0, 2**bits - 1
        low, high = rows.amin(1, keepdim=True).clamp(max=0), rows.amax(1, keepdim=True).clamp(min=0)
        scale = high / most - low / most
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = torch.zeros_like(scale) if scheme == "symmetric" else (-low / scale).round()
    q = (rows.div(scale).round() + zero).clamp(least, most).long()
    return QuantizedWeight(
        pack(q, bits), tuple(w.shape), bits, scheme, 0 if per_channel else None, scale[:, 0], zero[:, 0].int()
    )


def dequantize_layer_weights(quantized):
    shape, scale, zero = torch.Size(quantized.shape), quantized.scale, quantized.zero_point
    wanted = torch.Size([shape[0] if quantized.axis == 0 else 1])
    _require(scale.shape == zero.shape == wanted, f"{scale.shape} scales do not fit {shape}")
    q = unpack(quantized.packed, quantized.bits, shape.numel(), signed=quantized.scheme == "symmetric")
    return torch.einsum("cn,c->cn", (q.view(len(scale), -1) - zero[:, None]).float(), scale.float()).view(
        shape
    )


class DistillationLoss(nn.Module):
    def __init__(self, temperature=4.0, alpha=0.7):
        super().__init__()
        _require(0 < temperature < float("inf"), f"temperature {temperature} is not positive and finite")
        _require(0 <= alpha <= 1, f"alpha {alpha} is outside 0..1")
        self.temperature, self.alpha = temperature, alpha

    def forward(self, student_logits, teacher_logits, labels):
        _require(
            student_logits.shape == teacher_logits.shape,
            f"student {student_logits.shape} and teacher {teacher_logits.shape} differ",
        )
        t, a = self.temperature, self.alpha
        soft = F.kl_div(
            F.log_softmax(student_logits / t, 1), F.softmax(teacher_logits / t, 1), reduction="batchmean"
        )
        return a * t * t * soft + (1 - a) * F.cross_entropy(student_logits, labels)


def train_with_distillation(
    student, teacher, train, validation, *, loss=None, schedule=None, after_step=None
):
    loss = loss or DistillationLoss()
    schedule = schedule or Schedule(epochs=10, learning_rate=1e-3)
    (x,), (vx,) = train.inputs, validation.inputs
    oracle = copy.deepcopy(teacher).eval().requires_grad_(False)
    with torch.no_grad():
        known, v_known = oracle(x), oracle(vx)
    model = copy.deepcopy(student)
    repair = after_step(model) if after_step else lambda: None
    loader = DataLoader(
        TensorDataset(x, known, train.targets),
        schedule.batch_size,
        shuffle=True,
        generator=torch.Generator().manual_seed(schedule.seed),
    )
    optimizer = torch.optim.AdamW(
        model.parameters(), schedule.learning_rate, weight_decay=schedule.weight_decay
    )
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, schedule.epochs * len(loader)))
    epochs = []
    for _ in range(schedule.epochs):
        model.train()
        for inputs, taught, labels in loader:
            optimizer.zero_grad()
            value = loss(model(inputs), taught, labels)
            _require(value.isfinite(), f"the loss became {value.item()}")
            value.backward()
            optimizer.step()
            cosine.step()
            repair()
        with torch.no_grad():
            value = loss(model.eval()(vx), v_known, validation.targets).item()
        _require(value - value == 0, f"the loss on validation became {value}")
        epochs.append((value, {k: v.clone() for k, v in model.state_dict().items()}))
    if epochs:
        model.load_state_dict(min(epochs, key=lambda each: each[0])[1])
    return Compressed(model.eval())


@torch.no_grad()
def compute_neuron_importance(layer, method="l2", *, activations=None, seed=0):
    _require(isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)), f"{layer!r} has no neurons")
    w = layer.weight.flatten(1)
    _require(not w.isnan().any(), "a weight is nan")
    if method == "l1":
        return torch.linalg.vector_norm(w, 1, dim=1)
    if method == "l2":
        return torch.einsum("oi,oi->o", w, w).sqrt()
    if method == "variance":
        return w.var(1, unbiased=False)
    if method == "random":
        return torch.rand(len(w), generator=torch.Generator().manual_seed(seed))
    _require(method == "activation", f"there is no method {method!r}")
    _require(activations is not None, "the method 'activation' needs activations, got None")
    _require(not activations.isnan().any(), "an activation is nan")
    return activations.abs().transpose(0, 1).flatten(1).mean(1)


def prune_layer_neurons(model, layer, ratio, example_inputs, *, importance="l2", calibration=None, seed=0):
    _require(isinstance(ratio, float | int) and 0 <= ratio < 1, f"ratio {ratio!r} is outside 0 <= ratio < 1")
    new = copy.deepcopy(model)
    chain = {n: m for n, m in new.named_modules() if not list(m.children())}
    _require(layer in chain, f"there is no layer {layer!r}, but {list(chain)}")
    target, kinds = chain[layer], (nn.Linear, nn.modules.conv._ConvNd)
    _require(isinstance(target, kinds), f"{layer!r}, {target}, has no neurons")
    later = list(chain.values())[list(chain).index(layer) + 1 :]
    reader = next((i for i, m in enumerate(later) if isinstance(m, kinds)), None)
    _require(reader is not None, f"{layer!r} is the last layer, its neurons are the classes")

    modes = {m: m.training for m in new.modules()}
    new.eval()
    seen = []
    if importance == "activation":
        _require(calibration is not None, "'activation' needs calibration inputs, got None")
        handle = target.register_forward_hook(lambda *args: seen.append(args[-1]))
        with torch.no_grad():
            new(*calibration)
        handle.remove()
    scores = compute_neuron_importance(target, importance, activations=seen[0] if seen else None, seed=seed)
    width = len(scores)
    keep = scores.topk(max(1, width - round(ratio * width))).indices.sort().values

    def take(module, key, dim):
        if (old := getattr(module, key)) is not None:
            places = torch.arange(old.shape[dim]).view(width, -1)[keep].flatten()
            old.data = old.data.index_select(dim, places)

    take(target, "weight", 0)
    take(target, "bias", 0)
    for norm in later[:reader]:
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            for key in ("weight", "bias", "running_mean", "running_var"):
                take(norm, key, 0)
            norm.num_features = norm.num_features // width * len(keep)
    take(later[reader], "weight", 1)
    for m in (target, later[reader]):
        ins, outs = (
            ("in_features", "out_features") if isinstance(m, nn.Linear) else ("in_channels", "out_channels")
        )
        setattr(m, outs, m.weight.shape[0])
        setattr(m, ins, m.weight.shape[1])
    with torch.no_grad():
        new(*example_inputs)
    for m, mode in modes.items():
        m.training = mode
    return Compressed(new, (Change(layer, "neurons", width, len(keep)),))


def compare_compression_techniques(task, out, *, engine=None, seed=0):
    def recipe(name, *steps, **more):
        return Recipe(name=name, steps=steps, **more)

    recover, distill, student = ({"technique": t} for t in ("recover", "distill", "student"))
    student["ratio"] = 0.6
    zeros = {s: {"technique": "magnitude", "sparsity": 0.7, "score": s} for s in ("magnitude", "random")}
    q8, q4 = ({"technique": "quantize", "bits": b} for b in (8, 4))
    return press(
        task,
        (
            Recipe(name="fp32", role="baseline"),
            recipe("taught", student, distill),
            recipe("untaught", student, recover, role="control", control_of="taught"),
            recipe("halved", {"technique": "shrink", "ratio": 0.5}, distill),
            recipe("q8", q8),
            recipe("q4", q4, ship=("archive",)),
            recipe("zeros+q8", zeros["magnitude"], distill, q8, ship=("archive",)),
            recipe("zeros", zeros["magnitude"], ship=("archive", "onnx")),
            recipe("lot", zeros["random"], ship=("archive", "onnx"), role="control", control_of="zeros"),
        ),
        out,
        engine=engine,
        seed=seed,
    )


def design_pipeline(budget_bytes, float_bytes):
    _require(budget_bytes > 0, f"budget {budget_bytes} is not positive")
    _require(float_bytes > 0, f"float size {float_bytes} is not positive")
    share = 0.85 * budget_bytes / float_bytes  # what may be left of each float byte
    if share >= 1:
        return Recipe(name="float")
    q8, teach = {"technique": "quantize", "bits": 8}, {"technique": "distill"}
    if share >= 1 / 4:
        return Recipe(name="q8", steps=(q8,))
    sparsity = 9 / 8 - 4 * share
    cut = ()
    if sparsity > 0.9:
        cut = ({"technique": "shrink", "ratio": 1 - (share / (9 / 32 - 0.9 / 4)) ** 0.5}, teach)
        sparsity = 0.9
    zeros = {"technique": "magnitude", "sparsity": sparsity}
    return Recipe(name="packed", steps=(*cut, zeros, teach, q8), ship=("archive",))
