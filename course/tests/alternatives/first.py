"""A beginner: numpy and loops, one layer and one channel after the other, each input looked at first."""

import copy
import math

import numpy as np
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


def _check_model(model):
    if not isinstance(model, nn.Module):
        raise ValueError(f"model must be a nn.Module, but it is {model!r}")


def _check_bits(bits):
    if bits not in (2, 3, 4, 5, 6, 7, 8):
        raise ValueError(f"bits must be one of 2 to 8, but it is {bits!r}")


def _check_one_of(value, allowed):
    if value not in allowed:
        raise ValueError(f"{value!r} is not one of {allowed}")


def _each_once(model):
    found = []
    for name, layer in model.named_modules():
        for parameter in layer.parameters(recurse=False):
            if all(parameter is not other for _, other in found):
                found.append((name, parameter))
    return found


class CompressionMetrics:
    @staticmethod
    def count_parameters(model):
        _check_model(model)
        by_layer = {}
        trainable = 0
        for name, parameter in _each_once(model):
            by_layer[name] = by_layer.get(name, 0) + parameter.numel()
            if parameter.requires_grad:
                trainable += parameter.numel()
        total = sum(by_layer.values())
        if total == 0:
            raise ValueError(f"{type(model).__name__} has no parameters")
        return ParameterCount(total=total, trainable=trainable, by_layer=by_layer)


def calculate_model_size(model, *, bits=None):
    _check_model(model)
    if bits is not None:
        _check_bits(bits)
    kind_bytes = {"parameter": 0, "buffer": 0}
    by_dtype = {}
    by_layer = {}
    once = _each_once(model)
    for layer_name, layer in model.named_modules():
        by_layer[layer_name] = 0
        held = [("parameter", each) for name, each in once if name == layer_name]
        held += [("buffer", each) for each in layer.buffers(recurse=False)]
        for kind, each in held:
            size = each.numel() * each.element_size()
            dtype = str(each.dtype).split(".")[1]
            if bits is not None and kind == "parameter" and each.is_floating_point() and each.dim() >= 2:
                size = math.ceil(each.numel() * bits / 8)
                dtype = "int" + str(bits)
            kind_bytes[kind] += size
            by_dtype[dtype] = by_dtype.get(dtype, 0) + size
            by_layer[layer_name] += size
    if len(list(model.parameters())) == 0:
        raise ValueError(f"{type(model).__name__} has no parameters")
    total = kind_bytes["parameter"] + kind_bytes["buffer"]
    return ModelSize(total, kind_bytes["parameter"], kind_bytes["buffer"], by_dtype, by_layer)


CompressionMetrics.calculate_model_size = staticmethod(calculate_model_size)


def _check_weights(values, name):
    for value in values:
        if math.isnan(value) or math.isinf(value):
            raise ValueError(f"{name} holds a weight that is {value}")


def _summary(values, near_zero):
    mean = sum(values) / len(values)
    variance = sum((values - mean) ** 2) / len(values)
    return WeightSummary(
        count=len(values),
        mean=float(mean),
        std=math.sqrt(variance),
        low=float(min(values)),
        high=float(max(values)),
        near_zero=float(np.count_nonzero(np.abs(values) <= near_zero) / len(values)),
        sparsity=float(np.count_nonzero(values == 0) / len(values)),
    )


def analyze_weight_distribution(model, *, near_zero=1e-3):
    _check_model(model)
    if near_zero < 0:
        raise ValueError(f"near_zero must not be below 0, but it is {near_zero}")
    values = {}
    for name, parameter in _each_once(model):
        if parameter.is_floating_point() and parameter.dim() >= 2:
            numbers = parameter.detach().numpy().astype(np.float64).flatten()
            _check_weights(numbers, f"layer {name!r}")
            values[name] = np.concatenate([values.get(name, np.array([])), numbers])
    if len(values) == 0:
        raise ValueError(f"{type(model).__name__} has no weights")
    result = {}
    for name in values:
        result[name] = _summary(values[name], near_zero)
    result[""] = _summary(np.concatenate(list(values.values())), near_zero)
    return result


CompressionMetrics.analyze_weight_distribution = staticmethod(analyze_weight_distribution)

NEURONS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
LAYERS_WITH_WEIGHTS = (*NEURONS, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def calculate_sparsity(module_or_tensor):
    if isinstance(module_or_tensor, torch.Tensor):
        tensors = [module_or_tensor]
    elif isinstance(module_or_tensor, nn.Module):
        tensors = [
            each.weight for each in module_or_tensor.modules() if isinstance(each, LAYERS_WITH_WEIGHTS)
        ]
        if len(tensors) == 0:
            raise ValueError(f"{type(module_or_tensor).__name__} has no linear or convolutional weights")
    else:
        raise ValueError(f"expected a module or a tensor, got {module_or_tensor!r}")
    zeros = 0
    count = 0
    for tensor in tensors:
        zeros += int(np.sum(tensor.detach().numpy() == 0))
        count += tensor.numel()
    return zeros / count if count > 0 else 0.0


def _check_sparsity(sparsity):
    if isinstance(sparsity, bool) or not isinstance(sparsity, (int, float)) or not 0 <= sparsity <= 1:
        raise ValueError(f"sparsity must be a number from 0 to 1, but it is {sparsity!r}")


def prune_weights_by_magnitude(layer, sparsity):
    _check_sparsity(sparsity)
    if not isinstance(getattr(layer, "weight", None), torch.Tensor):
        raise ValueError(f"{type(layer).__name__} has no weight")
    values = layer.weight.detach().numpy().flatten()
    _check_weights(values, "the layer")
    order = np.argsort(np.abs(values), kind="stable")
    for position in order[: round(sparsity * len(values))]:
        values[position] = 0.0
    new = copy.deepcopy(layer)
    with torch.no_grad():
        new.weight.copy_(torch.tensor(values).reshape(layer.weight.shape))
    change = Change("", "sparsity", calculate_sparsity(layer.weight), calculate_sparsity(new.weight))
    return Compressed(model=new, changes=(change,), pruned=frozenset({"weight"}))


def prune_model_by_magnitude(model, sparsity, *, scope="global"):
    _check_sparsity(sparsity)
    _check_one_of(scope, ("global", "layer"))
    _check_model(model)
    new = copy.deepcopy(model)
    layers = []
    for name, layer in new.named_modules():
        if isinstance(layer, LAYERS_WITH_WEIGHTS):
            _check_weights(layer.weight.detach().numpy().flatten(), f"layer {name!r}")
            layers.append((name, layer))
    if len(layers) == 0:
        raise ValueError(f"{type(model).__name__} has no linear or convolutional layers")
    before = [calculate_sparsity(layer.weight) for _, layer in layers]
    if scope == "layer":
        for _, layer in layers:
            pruned = prune_weights_by_magnitude(layer, sparsity).model
            layer.weight.data = pruned.weight.data
    else:
        everything = np.concatenate([layer.weight.detach().numpy().flatten() for _, layer in layers])
        order = np.argsort(np.abs(everything), kind="stable")
        everything[order[: round(sparsity * len(everything))]] = 0
        start = 0
        for _, layer in layers:
            part = torch.tensor(everything[start : start + layer.weight.numel()])
            layer.weight.data = part.reshape(layer.weight.shape).to(layer.weight.dtype)
            start += layer.weight.numel()
    changes = []
    names = set()
    for (name, layer), was in zip(layers, before, strict=True):
        changes.append(Change(name, "sparsity", was, calculate_sparsity(layer.weight)))
        names.add("weight" if name == "" else name + ".weight")
    return Compressed(model=new, changes=tuple(changes), pruned=frozenset(names))


def quantize_layer_weights(layer, bits=8, *, scheme="symmetric", per_channel=True):
    _check_bits(bits)
    _check_one_of(scheme, ("symmetric", "affine"))
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
        raise ValueError(f"{type(layer).__name__} has no floating-point weight")
    values = weight.detach().double().numpy()
    _check_weights(values.flatten(), "the layer")
    parts = [values[channel] for channel in range(len(values))] if per_channel else [values]
    scales = []
    zero_points = []
    numbers = []
    for part in parts:
        zero_point = 0
        if scheme == "symmetric":
            least, most = -(2 ** (bits - 1) - 1), 2 ** (bits - 1) - 1
            scale = np.float32(np.max(np.abs(part)) / most)
        else:
            least, most = 0, 2**bits - 1
            low = min(float(np.min(part)), 0.0)
            high = max(float(np.max(part)), 0.0)
            scale = np.float32((high - low) / most)
        if scale == 0:
            scale = np.float32(1)
        if scheme == "affine":
            zero_point = int(np.round(-low / float(scale)))
        numbers.append(np.clip(np.round(part / float(scale)) + zero_point, least, most))
        scales.append(scale)
        zero_points.append(zero_point)
    q = torch.tensor(np.concatenate([n.flatten() for n in numbers])).to(torch.int64)
    return QuantizedWeight(
        packed=pack(q, bits),
        shape=tuple(weight.shape),
        bits=bits,
        scheme=scheme,
        axis=0 if per_channel else None,
        scale=torch.tensor(np.array(scales), dtype=torch.float32),
        zero_point=torch.tensor(zero_points, dtype=torch.int32),
    )


def dequantize_layer_weights(quantized):
    channels = quantized.shape[0] if quantized.axis == 0 else 1
    if len(quantized.scale) != channels or len(quantized.zero_point) != channels:
        raise ValueError(f"{len(quantized.scale)} scales do not fit the shape {tuple(quantized.shape)}")
    count = math.prod(quantized.shape)
    q = unpack(quantized.packed, quantized.bits, count, signed=quantized.scheme == "symmetric")
    q = q.reshape(channels, -1)
    weight = torch.zeros(q.shape)
    for channel in range(channels):
        weight[channel] = (q[channel] - quantized.zero_point[channel]) * quantized.scale[channel]
    return weight.reshape(tuple(quantized.shape))


class DistillationLoss(nn.Module):
    def __init__(self, temperature=4.0, alpha=0.7):
        super().__init__()
        if not math.isfinite(temperature) or temperature <= 0:
            raise ValueError(f"temperature must be positive and finite, but it is {temperature}")
        if math.isnan(alpha) or alpha < 0 or alpha > 1:
            raise ValueError(f"alpha must be from 0 to 1, but it is {alpha}")
        self.temperature = temperature
        self.alpha = alpha

    def forward(self, student_logits, teacher_logits, labels):
        if student_logits.shape != teacher_logits.shape:
            raise ValueError(f"shapes differ: {tuple(student_logits.shape)}, {tuple(teacher_logits.shape)}")
        student = torch.log_softmax(student_logits / self.temperature, dim=1)
        teacher = torch.log_softmax(teacher_logits / self.temperature, dim=1)
        soft = 0.0
        for row in range(len(student)):
            soft = soft + torch.sum(torch.exp(teacher[row]) * (teacher[row] - student[row]))
        soft = soft / len(student)
        hard = nn.functional.cross_entropy(student_logits, labels)
        return self.alpha * self.temperature**2 * soft + (1 - self.alpha) * hard


def train_with_distillation(
    student, teacher, train, validation, *, loss=None, schedule=None, after_step=None
):
    if loss is None:
        loss = DistillationLoss()
    if schedule is None:
        schedule = Schedule(epochs=10, learning_rate=1e-3)
    model = copy.deepcopy(student)
    teacher = copy.deepcopy(teacher)
    teacher.eval()
    hold = None if after_step is None else after_step(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=schedule.learning_rate)
    generator = np.random.default_rng(schedule.seed)
    least = math.inf
    best = copy.deepcopy(model.state_dict())
    for _epoch in range(schedule.epochs):
        model.train()
        order = generator.permutation(len(train))
        for start in range(0, len(train), schedule.batch_size):
            batch = train.take(torch.tensor(order[start : start + schedule.batch_size]))
            with torch.no_grad():
                answers = teacher(batch.inputs[0])
            cost = loss(model(batch.inputs[0]), answers, batch.targets)
            if not math.isfinite(cost.item()):
                raise ValueError(f"the loss became {cost.item()}")
            optimizer.zero_grad()
            cost.backward()
            optimizer.step()
            if hold is not None:
                hold()
        model.eval()
        with torch.no_grad():
            x = validation.inputs[0]
            cost = loss(model(x), teacher(x), validation.targets).item()
        if not math.isfinite(cost):
            raise ValueError(f"the loss on validation became {cost}")
        if cost < least:
            least = cost
            best = copy.deepcopy(model.state_dict())
    model.load_state_dict(best)
    return Compressed(model=model.eval())


def compute_neuron_importance(layer, method="l2", *, activations=None, seed=0):
    if not isinstance(layer, NEURONS):
        raise ValueError(f"{type(layer).__name__} has no neurons")
    _check_one_of(method, ("l1", "l2", "variance", "activation", "random"))
    weight = layer.weight.detach().double().numpy()
    if np.any(np.isnan(weight)):
        raise ValueError("a weight is nan")
    if method == "activation" and activations is None:
        raise ValueError("the method 'activation' needs activations, but they are None")
    if method == "random":
        return torch.tensor(np.random.default_rng(seed).random(len(weight)))
    scores = []
    for neuron in range(len(weight)):
        w = weight[neuron].flatten()
        if method == "l1":
            scores.append(np.sum(np.abs(w)))
        elif method == "l2":
            scores.append(np.sqrt(np.sum(w**2)))
        elif method == "variance":
            scores.append(np.mean((w - np.mean(w)) ** 2))
        else:
            scores.append(np.mean(np.abs(activations[:, neuron].detach().double().numpy())))
    scores = torch.tensor(np.array(scores))
    if torch.isnan(scores).any():
        raise ValueError("an activation is nan")
    return scores


def prune_layer_neurons(model, layer, ratio, example_inputs, *, importance="l2", calibration=None, seed=0):
    if not isinstance(ratio, (int, float)) or not (ratio >= 0 and ratio < 1):
        raise ValueError(f"ratio must be at least 0 and below 1, but it is {ratio!r}")
    new = copy.deepcopy(model)
    names = [name for name, _ in new.named_modules()]
    if layer not in names:
        raise ValueError(f"there is no layer {layer!r}")
    target = new.get_submodule(layer)
    if not isinstance(target, NEURONS):
        raise ValueError(f"layer {layer!r} is a {type(target).__name__} and has no neurons")
    between = []
    reader = None
    for name in names[names.index(layer) + 1 :]:
        each = new.get_submodule(name)
        if isinstance(each, NEURONS):
            reader = each
            break
        if isinstance(each, (nn.BatchNorm1d, nn.BatchNorm2d)):
            between.append(each)
    if reader is None:
        raise ValueError(f"layer {layer!r} is the last one, its neurons are the classes")

    activations = None
    if importance == "activation":
        if calibration is None:
            raise ValueError("the importance 'activation' needs calibration, but it is None")
        seen = []
        probe = copy.deepcopy(model)
        probe.eval()
        probe.get_submodule(layer).register_forward_hook(lambda module, args, output: seen.append(output))
        with torch.no_grad():
            probe(*calibration)
        activations = seen[0]
    scores = compute_neuron_importance(target, importance, activations=activations, seed=seed)
    width = len(scores)
    remove = min(round(ratio * width), width - 1)
    worst_first = sorted(range(width), key=lambda neuron: float(scores[neuron]))
    gone = set(worst_first[:remove])
    keep = [neuron for neuron in range(width) if neuron not in gone]

    def cut(module, name, axis):
        old = getattr(module, name)
        if old is not None:
            each = old.shape[axis] // width
            places = [neuron * each + i for neuron in keep for i in range(each)]
            smaller = old.detach().index_select(axis, torch.tensor(places))
            if isinstance(old, nn.Parameter):
                smaller = nn.Parameter(smaller, requires_grad=old.requires_grad)
            setattr(module, name, smaller)

    cut(target, "weight", 0)
    cut(target, "bias", 0)
    setattr(target, "out_features" if isinstance(target, nn.Linear) else "out_channels", len(keep))
    for norm in between:
        for name in ("weight", "bias", "running_mean", "running_var"):
            cut(norm, name, 0)
        norm.num_features = norm.num_features // width * len(keep)
    cut(reader, "weight", 1)
    setattr(reader, "in_features" if isinstance(reader, nn.Linear) else "in_channels", reader.weight.shape[1])
    probe = copy.deepcopy(new)
    probe.eval()
    with torch.no_grad():
        probe(*example_inputs)
    return Compressed(model=new, changes=(Change(layer, "neurons", width, len(keep)),))


def compare_compression_techniques(task, out, *, engine=None, seed=0):
    prune = {"technique": "magnitude", "sparsity": 0.8, "score": "magnitude"}
    by_lot = {"technique": "magnitude", "sparsity": 0.8, "score": "random"}
    quantize = {"technique": "quantize", "bits": 8}
    shrink = {"technique": "shrink", "ratio": 0.5}
    student = {"technique": "student", "ratio": 0.5}
    recover = {"technique": "recover"}
    distill = {"technique": "distill"}
    both = ("onnx", "archive")
    recipes = [Recipe(name="fp32", role="baseline")]
    recipes.append(Recipe(name="prune", steps=(prune, recover), ship=both))
    recipes.append(Recipe(name="lot", role="control", control_of="prune", steps=(by_lot, recover), ship=both))
    recipes.append(Recipe(name="int8", steps=(quantize,)))
    recipes.append(Recipe(name="shrink", steps=(shrink, recover)))
    recipes.append(Recipe(name="distill", steps=(student, distill)))
    recipes.append(Recipe(name="no-teacher", role="control", control_of="distill", steps=(student, recover)))
    recipes.append(Recipe(name="prune+int8", steps=(prune, recover, quantize), ship=both))
    return press(task, recipes, out, engine=engine, seed=seed)


def design_pipeline(budget_bytes, float_bytes):
    if budget_bytes <= 0 or float_bytes <= 0:
        raise ValueError(f"budget {budget_bytes} and float size {float_bytes} must both be positive")
    usable = budget_bytes * 0.85
    quantize = {"technique": "quantize", "bits": 8}
    recover = {"technique": "recover"}
    if float_bytes <= usable:
        return Recipe(name="as-it-is")
    if float_bytes * 8 / 32 <= usable:
        return Recipe(name="eight-bits", steps=(quantize,))
    places = float_bytes / 4
    for percent in range(1, 91):
        sparsity = percent / 100
        if places / 8 + places * (1 - sparsity) <= usable:
            prune = {"technique": "magnitude", "sparsity": sparsity}
            return Recipe(name="zeros", steps=(prune, recover, quantize), ship=("archive",))
    ratio = 0.0
    while (1 - ratio) ** 2 * (places / 8 + places * (1 - 0.9)) > usable:
        ratio = ratio + (1 - ratio) * 0.001
    shrink = {"technique": "shrink", "ratio": ratio}
    prune = {"technique": "magnitude", "sparsity": 0.9}
    return Recipe(name="both", steps=(shrink, recover, prune, recover, quantize), ship=("archive",))
