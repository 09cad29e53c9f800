# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Compression: a trained network, small enough to ship

# %% tags=["imports"]
import copy
import math

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

# %% tags=["course"]
from tinypress_course.learn import check

# %% [markdown]
# # Step 1: Understanding model size

# %% nbgrader={"grade": false, "grade_id": "count_parameters", "locked": false, "schema_version": 3, "solution": true, "task": false}
class CompressionMetrics:
    """Three questions to ask a network before and after compressing it."""

    @staticmethod
    def count_parameters(model: nn.Module) -> ParameterCount:
        """How many numbers the network holds that training may change.

        Returns a ``ParameterCount``: ``total``, ``trainable`` (those with ``requires_grad``) and ``by_layer``, which
        maps a layer's name, as in ``model.named_modules()``, to its own parameters. A layer without parameters does
        not appear. Buffers, such as the running mean of a batch norm, are no parameters. Raises a ``ValueError``
        where ``model`` is no ``nn.Module`` or has no parameters.
        """
        ### BEGIN SOLUTION
        if not isinstance(model, nn.Module):
            raise ValueError(f"count_parameters({type(model).__name__}): give a torch.nn.Module")
        by_layer = {}
        trainable = 0
        for name, module in model.named_modules():
            own = list(module.parameters(recurse=False))
            if own:
                by_layer[name] = sum(parameter.numel() for parameter in own)
                trainable += sum(parameter.numel() for parameter in own if parameter.requires_grad)
        if not by_layer:
            raise ValueError(f"count_parameters({type(model).__name__}): the network has no parameters")
        return ParameterCount(total=sum(by_layer.values()), trainable=trainable, by_layer=by_layer)
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test_count_parameters", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
check(CompressionMetrics.count_parameters)
### BEGIN HIDDEN TESTS
check(CompressionMetrics.count_parameters, hidden=True)
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "calculate_model_size", "locked": false, "schema_version": 3, "solution": true, "task": false}
def calculate_model_size(model: nn.Module, *, bits: int | None = None) -> ModelSize:
    """Bytes of the network's values: parameters and buffers.

    With ``bits`` (2 to 8), a weight tensor, which is any floating-point parameter of two or more dimensions, of n
    values takes the whole bytes that n * bits bits need; everything else stays as it is. Returns a ``ModelSize``:
    ``total_bytes``, ``parameter_bytes``, ``buffer_bytes``, ``by_dtype`` (such as ``{"float32": 400, "int4": 50}``)
    and ``by_layer``. Raises a ``ValueError`` for a number of bits outside 2..8, no ``nn.Module``, or no parameters.
    """
    ### BEGIN SOLUTION
    if not isinstance(model, nn.Module):
        raise ValueError(f"calculate_model_size({type(model).__name__}): give a torch.nn.Module")
    if bits is not None and not (isinstance(bits, int) and 2 <= bits <= 8):
        raise ValueError(f"calculate_model_size(bits={bits}): give 2 to 8 bits")
    by_dtype, by_layer = {}, {}
    parameter_bytes = buffer_bytes = 0
    for name, module in model.named_modules():
        for parameter in module.parameters(recurse=False):
            kind, size = str(parameter.dtype).removeprefix("torch."), parameter.numel() * parameter.element_size()
            if bits is not None and parameter.ndim >= 2 and parameter.is_floating_point():
                kind, size = f"int{bits}", math.ceil(parameter.numel() * bits / 8)
            parameter_bytes += size
            by_dtype[kind] = by_dtype.get(kind, 0) + size
            by_layer[name] = by_layer.get(name, 0) + size
        for buffer in module.buffers(recurse=False):
            kind, size = str(buffer.dtype).removeprefix("torch."), buffer.numel() * buffer.element_size()
            buffer_bytes += size
            by_dtype[kind] = by_dtype.get(kind, 0) + size
            by_layer[name] = by_layer.get(name, 0) + size
    if not parameter_bytes:
        raise ValueError(f"calculate_model_size({type(model).__name__}): the network has no parameters")
    return ModelSize(
        total_bytes=parameter_bytes + buffer_bytes,
        parameter_bytes=parameter_bytes,
        buffer_bytes=buffer_bytes,
        by_dtype=by_dtype,
        by_layer=by_layer,
    )
    ### END SOLUTION


CompressionMetrics.calculate_model_size = staticmethod(calculate_model_size)

# %% nbgrader={"grade": true, "grade_id": "test_calculate_model_size", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
check(CompressionMetrics.calculate_model_size)
### BEGIN HIDDEN TESTS
check(CompressionMetrics.calculate_model_size, hidden=True)
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "analyze_weight_distribution", "locked": false, "schema_version": 3, "solution": true, "task": false}
def analyze_weight_distribution(model: nn.Module, *, near_zero: float = 1e-3) -> dict[str, WeightSummary]:
    """How the weights are spread: a ``WeightSummary`` for each layer by its name, and one of all weights as ``""``.

    Weights are the floating-point parameters of two or more dimensions. Take mean and standard deviation (that of
    the population: divide by n) in float64. ``near_zero`` counts |w| <= near_zero. Raises a ``ValueError`` where
    ``near_zero`` is below 0, a weight is NaN or infinite, or there are no weights.
    """
    ### BEGIN SOLUTION
    if not isinstance(model, nn.Module):
        raise ValueError(f"analyze_weight_distribution({type(model).__name__}): give a torch.nn.Module")
    if not near_zero >= 0:
        raise ValueError(f"analyze_weight_distribution(near_zero={near_zero}): give 0 or more")
    layers = {}
    for name, module in model.named_modules():
        weights = [p.detach().double().flatten() for p in module.parameters(recurse=False) if p.ndim >= 2]
        if weights:
            layers[name] = torch.cat(weights)
    if not layers:
        raise ValueError("analyze_weight_distribution: the network has no weights")
    summaries = {}
    for name, values in {**layers, "": torch.cat(list(layers.values()))}.items():
        if not torch.isfinite(values).all():
            raise ValueError(f"analyze_weight_distribution: a weight of {name!r} is NaN or infinite")
        summaries[name] = WeightSummary(
            count=values.numel(),
            mean=values.mean().item(),
            std=values.std(correction=0).item(),
            low=values.min().item(),
            high=values.max().item(),
            near_zero=(values.abs() <= near_zero).double().mean().item(),
            sparsity=(values == 0).double().mean().item(),
        )
    return summaries
    ### END SOLUTION


CompressionMetrics.analyze_weight_distribution = staticmethod(analyze_weight_distribution)

# %% nbgrader={"grade": true, "grade_id": "test_analyze_weight_distribution", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
check(CompressionMetrics.analyze_weight_distribution)
### BEGIN HIDDEN TESTS
check(CompressionMetrics.analyze_weight_distribution, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# # Step 2: Magnitude pruning

# %% nbgrader={"grade": false, "grade_id": "calculate_sparsity", "locked": false, "schema_version": 3, "solution": true, "task": false}
def calculate_sparsity(module_or_tensor: nn.Module | torch.Tensor) -> float:
    """The fraction, 0 to 1, of exact zeros: of a tensor, or of all weights of a module.

    Of a module, the weights of its linear and convolutional layers count together; biases and normalization do
    not. A single layer counts its own ``weight``. An empty tensor has sparsity 0. Raises a ``ValueError`` for
    anything else, and for a module without such weights.
    """
    ### BEGIN SOLUTION
    if isinstance(module_or_tensor, torch.Tensor):
        tensors = [module_or_tensor]
    elif isinstance(module_or_tensor, nn.Module):
        layers = [m for m in module_or_tensor.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))]
        tensors = [layer.weight for layer in layers]
        if not tensors:
            raise ValueError(f"calculate_sparsity({type(module_or_tensor).__name__}): there are no weights")
    else:
        raise ValueError(f"calculate_sparsity({type(module_or_tensor).__name__}): give a module or a tensor")
    total = sum(tensor.numel() for tensor in tensors)
    zeros = sum(int((tensor == 0).sum()) for tensor in tensors)
    return zeros / total if total else 0.0
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test_calculate_sparsity", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
check(calculate_sparsity)
### BEGIN HIDDEN TESTS
check(calculate_sparsity, hidden=True)
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "prune_weights_by_magnitude", "locked": false, "schema_version": 3, "solution": true, "task": false}
def prune_weights_by_magnitude(layer: nn.Module, sparsity: float) -> Compressed:
    """A copy of ``layer`` in which exactly round(sparsity * n) of its n weights are zero: those nearest to zero.

    The layer that came in and the bias stay as they are; kept weights keep their value to the last bit. Weights
    that are zero already are among the smallest. Any choice among equal magnitudes is right.

    Returns ``Compressed(model=the copy, changes=(Change("", "sparsity", was, now),), pruned=frozenset({"weight"}))``.
    Raises a ``ValueError`` that tells the value: where ``sparsity`` is no fraction 0..1, the layer has no
    ``weight``, or a weight is NaN or infinite.
    """
    ### BEGIN SOLUTION
    weight = getattr(layer, "weight", None)
    if not isinstance(layer, nn.Module) or not isinstance(weight, torch.Tensor):
        raise ValueError(f"prune_weights_by_magnitude({type(layer).__name__}): the layer has no weight")
    if isinstance(sparsity, (bool, str)) or not 0 <= sparsity <= 1:
        raise ValueError(f"prune_weights_by_magnitude(sparsity={sparsity}): give a fraction from 0 to 1")
    if not torch.isfinite(weight).all():
        raise ValueError("prune_weights_by_magnitude: a weight is NaN or infinite")
    pruned = copy.deepcopy(layer)
    smallest_first = torch.argsort(weight.detach().abs().flatten(), stable=True)
    with torch.no_grad():
        pruned.weight.view(-1)[smallest_first[: round(sparsity * weight.numel())]] = 0.0
    change = Change("", "sparsity", was=calculate_sparsity(weight), now=calculate_sparsity(pruned.weight))
    return Compressed(pruned, changes=(change,), pruned=frozenset({"weight"}))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test_prune_weights_by_magnitude", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check(prune_weights_by_magnitude)
### BEGIN HIDDEN TESTS
check(prune_weights_by_magnitude, hidden=True)
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "prune_model_by_magnitude", "locked": false, "schema_version": 3, "solution": true, "task": false}
def prune_model_by_magnitude(model: nn.Module, sparsity: float, *, scope: str = "global") -> Compressed:
    """A copy of ``model`` with round(sparsity * n) of the n weights of its linear and convolutional layers zero.

    ``scope="global"`` ranks the weights of all layers together; ``"layer"`` brings each layer to ``sparsity`` on its
    own, with round() for each. Biases and normalization are never pruned.

    Returns a ``Compressed`` with one ``Change(layer, "sparsity", was, now)`` for each layer in their order, and in
    ``pruned`` the parameters' names, such as ``"fc1.weight"``. Raises a ``ValueError`` for a ``sparsity`` outside
    0..1, another ``scope``, a model without such layers, and NaN or infinite weights.
    """
    ### BEGIN SOLUTION
    if not isinstance(model, nn.Module):
        raise ValueError(f"prune_model_by_magnitude({type(model).__name__}): give a torch.nn.Module")
    if isinstance(sparsity, (bool, str)) or not 0 <= sparsity <= 1:
        raise ValueError(f"prune_model_by_magnitude(sparsity={sparsity}): give a fraction from 0 to 1")
    if scope not in ("global", "layer"):
        raise ValueError(f"prune_model_by_magnitude(scope={scope!r}): give 'global' or 'layer'")
    pruned = copy.deepcopy(model)
    layers = {n: m for n, m in pruned.named_modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))}
    if not layers:
        raise ValueError("prune_model_by_magnitude: there is no linear or convolutional layer")
    before = {name: calculate_sparsity(layer.weight) for name, layer in layers.items()}
    flats = [layer.weight.detach().flatten() for layer in layers.values()]
    if scope == "global":
        row = nn.Linear(sum(len(flat) for flat in flats), 1, bias=False)
        row.weight = nn.Parameter(torch.cat(flats).view(1, -1))
        whole = prune_weights_by_magnitude(row, sparsity).model.weight.detach().flatten()
        zeroed = torch.split(whole, [len(flat) for flat in flats])
    else:
        zeroed = [prune_weights_by_magnitude(layer, sparsity).model.weight for layer in layers.values()]
    with torch.no_grad():
        for layer, values in zip(layers.values(), zeroed):
            layer.weight.copy_(values.view_as(layer.weight))
    changes = tuple(
        Change(name, "sparsity", before[name], calculate_sparsity(layer.weight)) for name, layer in layers.items()
    )
    return Compressed(pruned, changes=changes, pruned=frozenset(f"{name}.weight" for name in layers))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test_prune_model_by_magnitude", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check(prune_model_by_magnitude)
### BEGIN HIDDEN TESTS
check(prune_model_by_magnitude, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# # Step 3: Quantization

# %% nbgrader={"grade": false, "grade_id": "quantize_layer_weights", "locked": false, "schema_version": 3, "solution": true, "task": false}
def quantize_layer_weights(
    layer: nn.Module, bits: int = 8, *, scheme: str = "symmetric", per_channel: bool = True
) -> QuantizedWeight:
    """The weights of ``layer`` as packed whole numbers: q = clamp(round(w / scale) + zero_point, least, most).

    ``symmetric``: whole numbers from -(2**(bits-1) - 1) to 2**(bits-1) - 1, zero point 0, and the largest magnitude
    lands on the end of that range. ``affine``: from 0 to 2**bits - 1; the range of the weights, widened so that it
    holds 0, is spread over all of them, and 0.0 itself lands on the zero point. Where all weights are zero, the
    scale is 1. ``per_channel`` gives each output channel (axis 0) a scale of its own.

    Returns ``QuantizedWeight(packed=pack(q, bits), shape=..., bits=bits, scheme=scheme, axis=0 or None,
    scale=float32 [channels or 1], zero_point=int32 [channels or 1])``. Raises a ``ValueError`` for bits outside 2..8,
    another scheme, no floating-point weight, and NaN or infinite weights. The layer is not changed.
    """
    ### BEGIN SOLUTION
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
        raise ValueError(f"quantize_layer_weights({type(layer).__name__}): the layer has no floating-point weight")
    if isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8:
        raise ValueError(f"quantize_layer_weights(bits={bits}): give a whole number from 2 to 8")
    if scheme not in ("symmetric", "affine"):
        raise ValueError(f"quantize_layer_weights(scheme={scheme!r}): give 'symmetric' or 'affine'")
    if not torch.isfinite(weight).all():
        raise ValueError("quantize_layer_weights: a weight is NaN or infinite")
    weight = weight.detach().float()
    rows = weight.flatten(1) if per_channel else weight.reshape(1, -1)
    low, high = rows.amin(1).double().clamp(max=0), rows.amax(1).double().clamp(min=0)
    if scheme == "symmetric":
        most = 2 ** (bits - 1) - 1
        least, width = -most, torch.maximum(-low, high)
    else:
        least, most = 0, 2**bits - 1
        width = high - low
    scale = (width / most).float().clamp(min=torch.finfo(torch.float32).tiny)
    scale[width == 0] = 1.0
    zero_point = torch.zeros_like(scale, dtype=torch.int32)
    if scheme == "affine":
        zero_point = torch.round(-low / scale.double()).clamp(least, most).to(torch.int32)
    q = (torch.round(rows / scale[:, None]) + zero_point[:, None]).clamp(least, most)
    axis = 0 if per_channel else None
    return QuantizedWeight(pack(q.long(), bits), tuple(weight.shape), bits, scheme, axis, scale, zero_point)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test_quantize_layer_weights", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
check(quantize_layer_weights)
### BEGIN HIDDEN TESTS
check(quantize_layer_weights, hidden=True)
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "dequantize_layer_weights", "locked": false, "schema_version": 3, "solution": true, "task": false}
def dequantize_layer_weights(quantized: QuantizedWeight) -> torch.Tensor:
    """The weights that the whole numbers stand for, (q - zero_point) * scale: float32 of the original shape.

    ``unpack(quantized.packed, quantized.bits, count, signed=...)`` gives back q; it is signed where the scheme is
    symmetric. With ``quantized.axis == 0`` there is one scale for each output channel. Raises a ``ValueError`` where
    the scales do not fit the shape.
    """
    ### BEGIN SOLUTION
    count = math.prod(quantized.shape)
    q = unpack(quantized.packed, quantized.bits, count, signed=quantized.scheme == "symmetric")
    channels = 1 if quantized.axis is None else quantized.shape[0]
    if not quantized.scale.numel() == quantized.zero_point.numel() == channels:
        raise ValueError(
            f"dequantize_layer_weights(shape={quantized.shape}, axis={quantized.axis}): "
            f"{quantized.scale.numel()} scales for {channels} channels"
        )
    rows = q.view(channels, -1) - quantized.zero_point.view(-1, 1)
    return (rows.float() * quantized.scale.view(-1, 1)).view(quantized.shape)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test_dequantize_layer_weights", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
check(dequantize_layer_weights)
### BEGIN HIDDEN TESTS
check(dequantize_layer_weights, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# # Step 4: Knowledge distillation

# %% nbgrader={"grade": false, "grade_id": "DistillationLoss", "locked": false, "schema_version": 3, "solution": true, "task": false}
class DistillationLoss(nn.Module):
    """alpha * T**2 * KL(softmax(teacher / T) || softmax(student / T)) + (1 - alpha) * cross_entropy(student, labels)

    The divergence is summed over the classes and averaged over the batch, so that equal logits give a soft part of
    exactly 0. Raises a ``ValueError`` where the temperature is not positive and finite, or alpha is outside 0..1;
    and when it is called, where the shapes of student and teacher differ.
    """

    def __init__(self, temperature: float = 4.0, alpha: float = 0.7) -> None:
        super().__init__()
        ### BEGIN SOLUTION
        if not (math.isfinite(temperature) and temperature > 0):
            raise ValueError(f"DistillationLoss(temperature={temperature}): give a positive number")
        if not 0 <= alpha <= 1:
            raise ValueError(f"DistillationLoss(alpha={alpha}): give a weight from 0 to 1")
        self.temperature = temperature
        self.alpha = alpha
        ### END SOLUTION

    def forward(
        self, student_logits: torch.Tensor, teacher_logits: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """The loss, one number, of logits [B, C], the teacher's logits [B, C] and class indices [B]."""
        ### BEGIN SOLUTION
        if student_logits.shape != teacher_logits.shape:
            raise ValueError(
                f"DistillationLoss: student {tuple(student_logits.shape)} and teacher "
                f"{tuple(teacher_logits.shape)} differ in shape"
            )
        soft = nn.functional.kl_div(
            torch.log_softmax(student_logits / self.temperature, dim=1),
            torch.log_softmax(teacher_logits / self.temperature, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        hard = nn.functional.cross_entropy(student_logits, labels)
        return self.alpha * self.temperature**2 * soft + (1 - self.alpha) * hard
        ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test_DistillationLoss", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check(DistillationLoss)
### BEGIN HIDDEN TESTS
check(DistillationLoss, hidden=True)
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "train_with_distillation", "locked": false, "schema_version": 3, "solution": true, "task": false}
def train_with_distillation(
    student, teacher, train, validation, *, loss=None, schedule=None, after_step=None
) -> Compressed:
    """Train a copy of ``student`` on the outputs of ``teacher`` and on the labels; neither network is changed.

    ``train`` and ``validation`` are ``Split``s: ``inputs`` (a tuple with one tensor), ``targets``, ``len()`` and
    ``take(rows)``. Call ``loss(student_logits, teacher_logits, labels)``, by default ``DistillationLoss()``, on
    batches of ``schedule.batch_size`` in an order that ``schedule.seed`` fixes, for ``schedule.epochs`` epochs at
    ``schedule.learning_rate`` (by default ``Schedule(epochs=10, learning_rate=1e-3)``). The teacher answers in
    evaluation mode and gets no gradient. ``after_step(model)``, where it is given, returns a function to call after
    every step. What comes back, in evaluation mode, has the weights of the epoch with the least loss on
    ``validation``. Raises a ``ValueError`` where the loss becomes NaN or infinite.
    """
    ### BEGIN SOLUTION
    loss = loss if loss is not None else DistillationLoss()
    schedule = schedule if schedule is not None else Schedule(epochs=10, learning_rate=1e-3)
    teacher = copy.deepcopy(teacher).eval()
    student = copy.deepcopy(student.model if isinstance(student, Compressed) else student)
    with torch.no_grad():
        taught, judged = teacher(*train.inputs), teacher(*validation.inputs)
    keep = after_step(student) if after_step is not None else None
    optimizer = torch.optim.AdamW(student.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    batches = max(1, math.ceil(len(train) / schedule.batch_size) - (len(train) % schedule.batch_size == 1))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, schedule.epochs * batches)
    order = torch.Generator().manual_seed(schedule.seed)
    best, best_state = math.inf, copy.deepcopy(student.state_dict())
    for _ in range(schedule.epochs):
        student.train()
        rows = torch.randperm(len(train), generator=order)
        for batch in range(batches):
            some = rows[batch * schedule.batch_size : (batch + 1) * schedule.batch_size]
            part = train.take(some)
            value = loss(student(*part.inputs), taught[some], part.targets)
            if not torch.isfinite(value):
                raise ValueError(f"train_with_distillation: the loss is {value.item()}; lower the learning rate")
            optimizer.zero_grad()
            value.backward()
            nn.utils.clip_grad_norm_(student.parameters(), 5.0)
            optimizer.step()
            cosine.step()
            if keep is not None:
                keep()
        student.eval()
        with torch.no_grad():
            value = float(loss(student(*validation.inputs), judged, validation.targets))
        if value < best:
            best, best_state = value, copy.deepcopy(student.state_dict())
    student.load_state_dict(best_state)
    return Compressed(student.eval(), changes=(Change("", "distillation steps", 0, schedule.epochs * batches),))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test_train_with_distillation", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
check(train_with_distillation)
### BEGIN HIDDEN TESTS
check(train_with_distillation, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# # Step 5: Structured pruning

# %% nbgrader={"grade": false, "grade_id": "compute_neuron_importance", "locked": false, "schema_version": 3, "solution": true, "task": false}
def compute_neuron_importance(
    layer: nn.Module, method: str = "l2", *, activations: torch.Tensor | None = None, seed: int = 0
) -> torch.Tensor:
    """How much each output neuron of a linear or convolutional layer matters: a tensor [out].

    With w the weights that come into a neuron: ``l1`` is the sum of |w|, ``l2`` the square root of the sum of w**2,
    ``variance`` the mean of (w - mean w)**2. The bias does not count. ``activation`` is the mean of |a| over samples
    and positions of ``activations`` [N, out, ...]; ``random`` are uniform numbers that ``seed`` fixes. Raises a
    ``ValueError`` for another method, a layer without neurons, missing activations, and NaN.
    """
    ### BEGIN SOLUTION
    if not isinstance(layer, (nn.Linear, nn.Conv1d, nn.Conv2d)):
        raise ValueError(f"compute_neuron_importance({type(layer).__name__}): give a linear layer or a convolution")
    w = layer.weight.detach().double().flatten(1)
    if method == "l1":
        importance = w.abs().sum(1)
    elif method == "l2":
        importance = torch.linalg.vector_norm(w, dim=1)
    elif method == "variance":
        importance = w.var(dim=1, correction=0)
    elif method == "activation":
        if activations is None or activations.shape[1] != len(w):
            raise ValueError(f"compute_neuron_importance: 'activation' needs activations [N, {len(w)}, ...]")
        importance = activations.detach().double().abs().transpose(0, 1).flatten(1).mean(1)
    elif method == "random":
        importance = torch.rand(len(w), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    else:
        raise ValueError(f"compute_neuron_importance(method={method!r}): give l1, l2, variance, activation or random")
    if not torch.isfinite(importance).all():
        raise ValueError("compute_neuron_importance: a weight is NaN or infinite")
    return importance.to(layer.weight.dtype)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test_compute_neuron_importance", "locked": true, "points": 4, "schema_version": 3, "solution": false, "task": false}
check(compute_neuron_importance)
### BEGIN HIDDEN TESTS
check(compute_neuron_importance, hidden=True)
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "prune_layer_neurons", "locked": false, "schema_version": 3, "solution": true, "task": false}
def prune_layer_neurons(
    model: nn.Module,
    layer: str,
    ratio: float,
    example_inputs: tuple[torch.Tensor, ...],
    *,
    importance: str = "l2",
    calibration: tuple[torch.Tensor, ...] | None = None,
    seed: int = 0,
) -> Compressed:
    """A copy of ``model`` without the round(ratio * width) least important neurons of ``layer``, really smaller.

    The layers of ``model`` run one after the other. With a neuron go its weights, its bias, its place in a batch norm
    that follows, and the weights with which the next linear or convolutional layer reads it; between a convolution
    and a Linear a flatten gives each channel several places. The neurons that stay keep their order, at least one
    stays, and the attributes (``out_features``, ``num_features``, ``in_channels``, ...) tell the new widths. What is
    left computes what ``model`` computed with those neurons' outputs, after the batch norm, read as zero. Run
    ``example_inputs`` through the result before you return it. ``calibration`` are the inputs for ``activation``.

    Returns a ``Compressed`` with ``Change(layer, "neurons", was, now)``. Raises a ``ValueError`` for a ratio outside
    0 <= ratio < 1, a layer that does not exist or has no neurons, and the last layer, whose neurons are the classes.
    """
    ### BEGIN SOLUTION
    layers_with_neurons = (nn.Linear, nn.Conv1d, nn.Conv2d)
    call = f"prune_layer_neurons(layer={layer!r}, ratio={ratio})"
    if isinstance(ratio, (bool, str)) or not 0 <= ratio < 1:
        raise ValueError(f"{call}: give a fraction with 0 <= ratio < 1")
    pruned = copy.deepcopy(model)
    modules = dict(pruned.named_modules())
    if not isinstance(modules.get(layer), layers_with_neurons):
        raise ValueError(f"{call}: there is no linear or convolutional layer of that name")
    names = list(modules)
    following = [modules[name] for name in names[names.index(layer) + 1 :]]
    consumer = next((module for module in following if isinstance(module, layers_with_neurons)), None)
    if consumer is None:
        raise ValueError(f"{call}: the neurons of the last layer are the classes")
    activations = None
    if importance == "activation" and calibration is not None:
        seen = []
        hook = modules[layer].register_forward_hook(lambda module, inputs, output: seen.append(output.detach()))
        with torch.no_grad():
            pruned(*calibration)
        hook.remove()
        activations = seen[0]
    scores = compute_neuron_importance(modules[layer], importance, activations=activations, seed=seed)
    width = len(scores)
    gone = min(round(ratio * width), width - 1)
    keep = torch.argsort(scores, stable=True)[gone:].sort().values

    def cut(module: nn.Module, name: str, axis: int, places: torch.Tensor) -> None:
        old = getattr(module, name)
        if old is not None:
            new = old.detach().index_select(axis, places)
            setattr(module, name, nn.Parameter(new) if isinstance(old, nn.Parameter) else new)

    cut(modules[layer], "weight", 0, keep)
    cut(modules[layer], "bias", 0, keep)
    setattr(modules[layer], "out_features" if isinstance(modules[layer], nn.Linear) else "out_channels", len(keep))
    for module in following[: following.index(consumer)]:
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for name in ("weight", "bias", "running_mean", "running_var"):
                cut(module, name, 0, keep)
            module.num_features = len(keep)
    places_each = consumer.weight.shape[1] // width
    places = (keep[:, None] * places_each + torch.arange(places_each)).flatten()
    cut(consumer, "weight", 1, places)
    setattr(consumer, "in_features" if isinstance(consumer, nn.Linear) else "in_channels", len(places))
    with torch.no_grad():
        pruned(*example_inputs)
    return Compressed(pruned, changes=(Change(layer, "neurons", width, len(keep)),))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test_prune_layer_neurons", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
check(prune_layer_neurons)
### BEGIN HIDDEN TESTS
check(prune_layer_neurons, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# # Step 6: Comparison and the pipeline

# %% nbgrader={"grade": false, "grade_id": "compare_compression_techniques", "locked": false, "schema_version": 3, "solution": true, "task": false}
def compare_compression_techniques(task, out, *, engine=None, seed: int = 0):
    """Press ``task`` by one recipe for each technique, by combinations and by their controls; return the receipt.

    Call ``press(task, recipes, out, engine=engine, seed=seed)`` once. The recipes, each with its own name: first the
    baseline, ``Recipe(name="fp32", role="baseline")``, without steps; pruning alone, shipped as an ``"archive"`` too,
    since its zeros make no ONNX file smaller; quantization alone; shrinking alone; a network taught by the
    original (``distill``); one combination of pruning and quantization; and at least one control of the pruned and
    one of the taught candidate (``role="control", control_of="..."``): the same number of zeros at random places, and
    the same small network without a teacher. A step is a dictionary: ``{"technique": "magnitude", "sparsity": 0.8,
    "score": "magnitude" or "random"}``, ``{"technique": "quantize", "bits": 8}``, ``{"technique": "shrink", "ratio":
    0.5}``, ``{"technique": "student", "ratio": 0.5}``, ``{"technique": "recover"}``, ``{"technique": "distill"}``.
    """
    ### BEGIN SOLUTION
    pruned = {"technique": "magnitude", "sparsity": 0.8}
    small = {"technique": "student", "ratio": 0.5}
    recover, int8 = {"technique": "recover"}, {"technique": "quantize", "bits": 8}
    both = ("onnx", "archive")
    recipes = [
        Recipe(name="fp32", role="baseline"),
        Recipe(name="prune", steps=(pruned, recover), ship=both),
        Recipe(name="int8", steps=(int8,)),
        Recipe(name="shrink", steps=({"technique": "shrink", "ratio": 0.5}, recover)),
        Recipe(name="distill", steps=(small, {"technique": "distill"})),
        Recipe(name="prune+int8", steps=({**pruned, "sparsity": 0.9}, recover, int8), ship=both),
        Recipe(name="prune-random", role="control", control_of="prune", steps=({**pruned, "score": "random"}, recover)),
        Recipe(name="small-dense", role="control", control_of="distill", steps=(small, recover)),
    ]
    return press(task, recipes, out, engine=engine, seed=seed)
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test_compare_compression_techniques", "locked": true, "points": 6, "schema_version": 3, "solution": false, "task": false}
check(compare_compression_techniques)
### BEGIN HIDDEN TESTS
check(compare_compression_techniques, hidden=True)
### END HIDDEN TESTS

# %% nbgrader={"grade": false, "grade_id": "design_pipeline", "locked": false, "schema_version": 3, "solution": true, "task": false}
def design_pipeline(budget_bytes: int, float_bytes: int) -> Recipe:
    """A recipe whose file fits ``budget_bytes``, for a network that takes ``float_bytes`` in float32.

    Reckon with these sizes and leave 15 % of the budget for names, biases and headers. In ``"onnx"``, 8 bits take
    8 / 32 of the float bytes, and zeros save nothing. In ``"archive"``, pruned 8-bit weights take one bit for every
    place and 8 for every weight that is kept. Shrinking by ``ratio`` leaves (1 - ratio)**2 of the bytes. Press no
    harder than you must: no steps where the float file fits with its margin, 8 bits alone where that is enough, then
    zeros up to a sparsity of 0.9, and fewer neurons only below that. Every step that hurts is followed by one that
    teaches (``recover`` or ``distill``), and quantization comes last. Raises a ``ValueError`` where the budget or the
    float size is not positive.
    """
    ### BEGIN SOLUTION
    if budget_bytes <= 0 or float_bytes <= 0:
        raise ValueError(f"design_pipeline({budget_bytes}, {float_bytes}): give positive numbers of bytes")
    room = 0.85 * budget_bytes / float_bytes
    recover, int8 = {"technique": "recover"}, {"technique": "quantize", "bits": 8}
    if room >= 1:
        return Recipe(name="pipeline", steps=())
    if room >= 8 / 32:
        return Recipe(name="pipeline", steps=(int8,))
    steps, most = [], 0.9
    smallest = (8 * (1 - most) + 1) / 32
    if room < smallest:
        ratio = 1 - math.sqrt(room / smallest)
        steps += [{"technique": "shrink", "ratio": ratio}, {"technique": "distill"}]
        sparsity = most
    else:
        sparsity = 1 - (32 * room - 1) / 8
    steps += [{"technique": "magnitude", "sparsity": sparsity}, recover, int8]
    return Recipe(name="pipeline", steps=tuple(steps), ship=("archive",))
    ### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "test_design_pipeline", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check(design_pipeline)
### BEGIN HIDDEN TESTS
check(design_pipeline, hidden=True)
### END HIDDEN TESTS
