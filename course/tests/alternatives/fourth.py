"""In a hurry: what the statement says and no more, short expressions, each phrase taken by its word."""

import copy
import math
from fractions import Fraction

import torch
from torch import nn

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


def refuse(what):
    raise ValueError(what)


class CompressionMetrics:
    @staticmethod
    def count_parameters(model):
        isinstance(model, nn.Module) or refuse(f"{model!r} is no nn.Module")
        first = [(name.rpartition(".")[0], p.numel()) for name, p in model.named_parameters()]
        own = {name: sum(n for each, n in first if each == name) for name, _ in first}
        own or refuse(f"{model!r} has no parameters")
        total = sum(p.numel() for p in model.parameters())
        return ParameterCount(total, sum(p.numel() for p in model.parameters() if p.requires_grad), own)


def calculate_model_size(model, *, bits=None):
    bits is None or bits in {2, 3, 4, 5, 6, 7, 8} or refuse(f"{bits!r} bits")
    isinstance(model, nn.Module) or refuse(f"{model!r} is no nn.Module")
    list(model.parameters()) or refuse(f"{model!r} has no parameters")

    def kind_and_bytes(t):
        if bits and isinstance(t, nn.Parameter) and t.is_floating_point() and len(t.shape) >= 2:
            return f"int{bits}", math.ceil(Fraction(t.numel() * bits, 8))
        return str(t.dtype)[6:], t.numel() * t.itemsize

    parameters = [kind_and_bytes(p) for p in model.parameters()]
    buffers = [kind_and_bytes(b) for b in model.buffers()]
    by_dtype = {}
    for kind, size in parameters + buffers:
        by_dtype[kind] = by_dtype.get(kind, 0) + size
    by_layer = {}
    for name, t in [*model.named_parameters(), *model.named_buffers()]:
        layer, _, _ = name.rpartition(".")
        by_layer[layer] = by_layer.get(layer, 0) + kind_and_bytes(t)[1]
    p, b = sum(s for _, s in parameters), sum(s for _, s in buffers)
    return ModelSize(p + b, p, b, by_dtype, by_layer)


CompressionMetrics.calculate_model_size = staticmethod(calculate_model_size)


def analyze_weight_distribution(model, *, near_zero=1e-3):
    isinstance(model, nn.Module) or refuse(f"{model!r} is no network")
    near_zero >= 0 or refuse(f"near_zero={near_zero}")
    found = {"": []}
    for name, w in model.named_parameters():
        if w.dim() >= 2 and w.is_floating_point():
            w = w.detach().reshape(-1)
            bool(w.isfinite().all()) or refuse(f"{name} is {w[~w.isfinite()][0]}")
            layer, _, _ = name.rpartition(".")
            found[""].append(w)
            if layer:
                found.setdefault(layer, []).append(w)
    found[""] or refuse(f"{model!r} has no weights")
    summaries = {}
    for layer, ws in found.items():
        w = torch.cat(ws)
        std, mean = torch.std_mean(w.double(), correction=0)
        near, zero = ((w.abs() <= t).sum().item() / len(w) for t in (near_zero, 0))
        summaries[layer] = WeightSummary(
            len(w), float(mean), float(std), float(w.min()), float(w.max()), near, zero
        )
    return summaries


CompressionMetrics.analyze_weight_distribution = staticmethod(analyze_weight_distribution)


def linear_or_convolutional(module):
    return isinstance(module, nn.Linear) or type(module).__name__.startswith("Conv")


def calculate_sparsity(module_or_tensor):
    it = module_or_tensor
    if isinstance(it, nn.Module):
        if not list(it.children()) and isinstance(getattr(it, "weight", None), torch.Tensor):
            ws = [it.weight]
        else:
            ws = [m.weight for m in it.modules() if linear_or_convolutional(m)] or refuse(
                f"{it!r}: no weights"
            )
    else:
        ws = [it] if isinstance(it, torch.Tensor) else refuse(f"{it!r} is neither module nor tensor")
    zeros = [w == 0 for w in ws]
    return sum(z.sum().item() for z in zeros) / max(1, sum(z.numel() for z in zeros))


def zero_the_smallest(tensors, sparsity):
    """New tensors in which the smallest of all are 0."""
    for t in tensors:
        bool(t.isfinite().all()) or refuse(f"a weight is {t[~t.isfinite()][0]}")
    flat = torch.cat([t.detach().reshape(-1) for t in tensors])
    flat[flat.abs().argsort(descending=True).flip(0)[: round(sparsity * len(flat))]] = 0
    parts = flat.split([t.numel() for t in tensors])
    return [
        nn.Parameter(p.reshape(t.shape).clone(), t.requires_grad) for p, t in zip(parts, tensors, strict=True)
    ]


def prune_weights_by_magnitude(layer, sparsity):
    (isinstance(sparsity, (int, float)) and 0 <= sparsity <= 1) or refuse(
        f"sparsity {sparsity!r} is not in 0..1"
    )
    getattr(layer, "weight", None) is not None or refuse(f"{layer!r} has no weight")
    model = copy.deepcopy(layer)
    [model.weight] = zero_the_smallest([layer.weight], sparsity)
    was, now = (calculate_sparsity(each.weight) for each in (layer, model))
    return Compressed(model, (Change("", "sparsity", was, now),), pruned=frozenset({"weight"}))


def prune_model_by_magnitude(model, sparsity, *, scope="global"):
    (isinstance(sparsity, (int, float)) and 0 <= sparsity <= 1) or refuse(
        f"sparsity {sparsity!r} is not in 0..1"
    )
    isinstance(model, nn.Module) or refuse(f"{model!r} is no model")
    model = copy.deepcopy(model)
    layers = {n: m for n, m in model.named_modules() if linear_or_convolutional(m)}
    layers or refuse(f"no layers to prune in {model!r}")
    old = [m.weight for m in layers.values()]
    if scope == "global":
        new = zero_the_smallest(old, sparsity)
    elif scope == "layer":
        new = [zero_the_smallest([w], sparsity)[0] for w in old]
    else:
        refuse(f"scope {scope!r}")
    for m, w in zip(layers.values(), new, strict=True):
        m.weight = w
    changes = tuple(
        Change(n, "sparsity", calculate_sparsity(a), calculate_sparsity(b))
        for n, a, b in zip(layers, old, new, strict=True)
    )
    return Compressed(model, changes, (), frozenset(f"{n}.weight" if n else "weight" for n in layers))


def quantize_layer_weights(layer, bits=8, *, scheme="symmetric", per_channel=True):
    bits in {2, 3, 4, 5, 6, 7, 8} or refuse(f"bits {bits!r}")
    scheme in {"symmetric", "affine"} or refuse(f"scheme {scheme!r}")
    w = getattr(layer, "weight", None)
    (isinstance(w, torch.Tensor) and w.is_floating_point()) or refuse(
        f"{layer!r} has no floating-point weight"
    )
    bool(w.isfinite().all()) or refuse(f"a weight is {w[~w.isfinite()][0]}")

    def one(part):
        part = part.detach().double()
        low, high = min(part.min().item(), 0), max(part.max().item(), 0)
        if scheme == "symmetric":
            most = 2 ** (bits - 1) - 1
            scale = max(-low, high) / most or 1.0
            return (part / scale).round().clamp(-most, most), scale, 0
        scale = (high - low) / (2**bits - 1) or 1.0
        zero_point = round(-low / scale)
        return ((part / scale).round() + zero_point).clamp(0, 2**bits - 1), scale, zero_point

    qs, scales, zero_points = zip(*map(one, w if per_channel else [w]), strict=True)
    return QuantizedWeight(
        pack(torch.stack(qs).int(), bits),
        tuple(w.shape),
        bits,
        scheme,
        0 if per_channel else None,
        torch.tensor(scales, dtype=torch.float32),
        torch.tensor(zero_points, dtype=torch.int32),
    )


def dequantize_layer_weights(quantized):
    z, s, shape = quantized.zero_point, quantized.scale, list(quantized.shape)
    len(z) == len(s) == (shape[0] if quantized.axis == 0 else 1) or refuse(f"{len(s)} scales for {shape}")
    q = unpack(quantized.packed, quantized.bits, math.prod(shape), signed=quantized.scheme == "symmetric")
    return ((q.view(shape).movedim(0, -1) - z) * s).movedim(-1, 0)


class DistillationLoss(nn.Module):
    def __init__(self, temperature=4.0, alpha=0.7):
        super().__init__()
        0 < temperature < math.inf or refuse(f"temperature {temperature}")
        0 <= alpha <= 1 or refuse(f"alpha {alpha}")
        self.T, self.alpha = temperature, alpha
        self.kl = nn.KLDivLoss(reduction="batchmean", log_target=True)
        self.ce = nn.CrossEntropyLoss()

    def forward(self, student_logits, teacher_logits, labels):
        s, t = student_logits, teacher_logits
        s.shape == t.shape or refuse(f"shapes {s.shape} and {t.shape} differ")
        soft = self.kl((s / self.T).log_softmax(-1), (t / self.T).log_softmax(-1))
        return self.alpha * self.T**2 * soft + (1 - self.alpha) * self.ce(s, labels)


def train_with_distillation(
    student, teacher, train, validation, *, loss=None, schedule=None, after_step=None
):
    """RMSprop, a fresh order for every epoch, and whole models in the history."""
    loss = loss or DistillationLoss()
    schedule = schedule or Schedule(epochs=10, learning_rate=1e-3)
    teacher, model = copy.deepcopy(teacher).eval(), copy.deepcopy(student)
    after = after_step(model) if after_step else None
    optimizer = torch.optim.RMSprop(model.parameters(), schedule.learning_rate)
    size = min(schedule.batch_size, len(train))
    history = []

    def of(split):
        with torch.no_grad():
            answers = teacher(split.inputs[0])
        return loss(model(split.inputs[0]), answers, split.targets)

    for epoch in range(schedule.epochs):
        order = torch.randperm(
            len(train), generator=torch.Generator().manual_seed(1000 * schedule.seed + epoch)
        )
        total = 0.0
        for i in range(-(-len(train) // size)):
            model.train().zero_grad()
            value = of(train.take(order[i * size : (i + 1) * size]))
            total += value.item()
            value.backward()
            optimizer.step()
            if after:
                after()
        model.eval()
        with torch.no_grad():
            value = of(validation).item()
        math.isfinite(total + value) or refuse(f"the loss is {total} in training, {value} on validation")
        history.append((value, epoch, copy.deepcopy(model)))
    return Compressed(min(history)[2] if history else model.eval())


def compute_neuron_importance(layer, method="l2", *, activations=None, seed=0):
    linear_or_convolutional(layer) or refuse(f"{layer!r} has no neurons")
    w = layer.weight.reshape(len(layer.weight), -1)
    if method == "activation":
        activations is None and refuse("activations are None")
        values = (
            activations.abs().flatten(2).mean((0, 2)) if activations.dim() > 2 else activations.abs().mean(0)
        )
    else:
        methods = {
            "l1": lambda: w.abs().sum(1),
            "l2": lambda: (w**2).sum(1) ** 0.5,
            "variance": lambda: ((w - w.mean(1, True)) ** 2).mean(1),
            "random": lambda: (
                torch.rand(w.shape, generator=torch.Generator().manual_seed(seed))[:, 0] + 0 * w[:, 0]
            ),
        }
        method in methods or refuse(f"method {method!r}")
        values = methods[method]()
    bool(values.isnan().any()) and refuse(f"importance {values.tolist()}")
    return values


def prune_layer_neurons(model, layer, ratio, example_inputs, *, importance="l2", calibration=None, seed=0):
    (isinstance(ratio, (int, float)) and 0 <= ratio < 1) or refuse(f"ratio {ratio!r}")
    was_training, model = model.training, copy.deepcopy(model).eval()
    names = [name for name, _ in model.named_children()]
    layer in names or refuse(f"layer {layer!r} is not in {names}")
    chain = list(model.children())[names.index(layer) :]
    first = chain[0]
    linear_or_convolutional(first) or refuse(f"layer {layer!r} has no neurons: {first}")
    next_one = next((m for m in chain[1:] if linear_or_convolutional(m)), None)
    next_one or refuse(f"layer {layer!r} is the last")
    between = [m for m in chain[1 : chain.index(next_one)] if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    n = len(first.weight)
    activations = None
    if importance == "activation":
        outputs = {}
        heard = between[0] if between and between[0].num_features == n else first
        hook = heard.register_forward_hook(lambda m, i, o: outputs.update(it=o))
        with torch.no_grad():
            model(*(calibration or example_inputs))
        hook.remove()
        activations = outputs["it"]
    scores = compute_neuron_importance(first, importance, activations=activations, seed=seed).tolist()
    gone = sorted(range(n), key=lambda i: (scores[i], -i))[: min(n - 1, round(ratio * n))]
    kept = torch.ones(n, dtype=torch.bool)
    kept[gone] = False

    def keep(module, attribute, dim, sizes):
        old = getattr(module, attribute)
        if old is None:
            return
        mask = kept.repeat_interleave(old.shape[dim] // n)
        new = old.detach()[mask] if dim == 0 else old.detach()[:, mask]
        setattr(
            module, attribute, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
        )
        for size in sizes:
            if hasattr(module, size):
                setattr(module, size, new.shape[dim])

    keep(first, "bias", 0, [])
    keep(first, "weight", 0, ["out_features", "out_channels"])
    keep(next_one, "weight", 1, ["in_features", "in_channels"])
    for norm in between:
        norm.num_features = norm.num_features // n * (n - len(gone))
        for attribute in ("weight", "bias", "running_mean", "running_var"):
            keep(norm, attribute, 0, [])
    with torch.no_grad():
        model(*example_inputs)
    return Compressed(model.train(was_training), (Change(layer, "neurons", n, n - len(gone)),))


def compare_compression_techniques(task, out, *, engine=None, seed=0):
    table = """
        fp32
        pruned          magnitude
        pruned-trained  magnitude recover
        drawn           random recover               of pruned-trained
        drawn-untrained random                       of pruned
        int8            quantize
        thin            shrink
        thin-trained    shrink distill
        learned         student distill
        unlearned       student recover              of learned
        everything      shrink recover magnitude recover quantize
        both            magnitude recover quantize
    """
    steps = {
        "magnitude": {"technique": "magnitude", "sparsity": 0.85},
        "random": {"technique": "magnitude", "sparsity": 0.85, "score": "random"},
        "quantize": {"technique": "quantize", "bits": 8},
        "shrink": {"technique": "shrink", "ratio": 0.4},
        "student": {"technique": "student", "ratio": 0.5},
    }
    recipes = []
    for line in table.split("\n")[1:-1]:
        words, _, original = line.partition(" of ")
        name, *techniques = words.split()
        recipes.append(
            Recipe(
                name=name,
                role="control" if original else "candidate" if techniques else "baseline",
                control_of=original or None,
                steps=tuple(steps.get(t, {"technique": t}) for t in techniques),
                ship=("onnx", "archive") if {"magnitude", "random"} & set(techniques) else ("onnx",),
            )
        )
    return press(task, recipes, out, engine=engine, seed=seed)


def design_pipeline(budget_bytes, float_bytes):
    budget_bytes > 0 or refuse(f"budget_bytes {budget_bytes}")
    float_bytes > 0 or refuse(f"float_bytes {float_bytes}")
    ours, floats = Fraction(budget_bytes) * 85 / 100, Fraction(float_bytes)
    quantize, recover = {"technique": "quantize", "bits": 8}, {"technique": "recover"}
    if floats <= ours:
        return Recipe(name="nothing")
    if floats / 4 <= ours:
        return Recipe(name="quantized", steps=(quantize,))
    kept = (ours - floats / 32) / (floats / 4)
    steps = [{"technique": "magnitude", "sparsity": min(0.9, float(1 - kept))}, recover, quantize]
    if kept < Fraction(1, 10):
        ratio = 1 - math.sqrt(ours / (floats / 32 + floats / 40))
        steps = [{"technique": "shrink", "ratio": ratio}, recover, *steps]
    return Recipe(name="zeros", steps=tuple(steps), ship=("archive",))
