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
#
# A network is trained where memory and power are plenty. It has to run where they are not: in an app that
# people download over a slow connection, in a camera without a fan, on a server that is paid for by the
# millisecond, on a wrist, from a battery the size of a coin.
#
# In this module you write the techniques that close that gap. Then your own functions press a real network:
# it tells seven shoulder exercises from the motion sensor of a smartwatch, it was trained on a few people,
# and it is tested on others that it has never seen. What you get to see was measured on the files that your
# functions made.
#
# Each of the six steps goes the same way: **why**, **predict**, **write**, **measure**, **reflect**. Do
# write your guess down before you measure. A wrong guess is what this module is for.

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
from tinypress import Engine
from tinypress_course import pictures
from tinypress_course.bench import accuracy_of, bytes_of, find_network, press_and_show, show, time_of
from tinypress_course.learn import check, claim, predict, record

# %% [markdown]
# # Step 1: Understanding model size
#
# ## Why
#
# A network is a list of numbers and a way to use them. The numbers are nearly all of the file. Before
# anything can be made smaller, you have to know where they are, how many bytes each one takes, and which of
# them matter.
#
# The constraint of this step: the smallest microcontrollers that run networks at all have about a megabyte
# of flash for program and weights together, and a quarter of that in memory. The picture shows what each
# layer of the watch network must hold while it runs, against that quarter.

# %% tags=["given"]
from tinypress_course.experiments.microcontroller import FLASH_BYTES, RAM_BYTES, activations_of

watch = find_network("watch")
held = activations_of(watch.model, watch.example_inputs[0][:1]).by_layer
pictures.bars({name: size / 1024 for name, size in held.items()}, "KiB held by a layer, one byte a value")

# %% [markdown]
# ## Predict
#
# The network takes six motion channels over 128 moments, runs three convolutions, and gives seven numbers.
# How large is its file, in kilobytes? Which share of the parameters, from 0 to 1, do the three convolutions
# hold? Put your guess in place of the three dots.

# %% tags=["predict"]
predict(1, file_kilobytes=..., share_in_convolutions=...)

# %% [markdown]
# ## Write
#
# What you refuse, you refuse with a ``ValueError`` whose text tells the value that was given. Helpers of your
# own go into the function's cell, above it, or into a cell of their own.
#
# Three questions to ask of any network. A parameter is what training may change; a buffer, such as the
# running mean of a batch norm, is kept in the file but not trained. What belongs to a layer is what it
# holds itself, not what its children hold. Two layers may hold the very same tensor, as a language model does
# whose output layer reuses its embedding: that is one tensor, and it belongs to the first of them.


# %% nbgrader={"grade": false, "grade_id": "count_parameters", "locked": false, "schema_version": 3, "solution": true, "task": false}
class CompressionMetrics:
    """Three questions to ask a network before and after compressing it."""

    @staticmethod
    def count_parameters(model: nn.Module) -> ParameterCount:
        """How many numbers the network holds that training may change.

        Returns a ``ParameterCount``: ``total``, ``trainable`` (those with ``requires_grad``) and ``by_layer``, which
        maps a layer's name, as in ``model.named_modules()``, to its own parameters. A layer without parameters does
        not appear. A parameter that two layers share counts once, with the first that holds it. Buffers, such as the
        running mean of a batch norm, are no parameters. Raises a ``ValueError`` where ``model`` is no ``nn.Module``
        or has no parameters.
        """
        ### BEGIN SOLUTION
        if not isinstance(model, nn.Module):
            raise ValueError(f"count_parameters({type(model).__name__}): give a torch.nn.Module")
        by_layer = {}
        trainable = 0
        seen = set()
        for name, module in model.named_modules():
            own = [parameter for parameter in module.parameters(recurse=False) if parameter not in seen]
            seen.update(own)
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
    values takes the whole bytes that n * bits bits need; everything else stays as it is. A parameter that two layers
    share is stored once, with the first that holds it. Returns a ``ModelSize``:
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
    seen = set()
    for name, module in model.named_modules():
        own = [parameter for parameter in module.parameters(recurse=False) if parameter not in seen]
        seen.update(own)
        for parameter in own:
            kind, size = (
                str(parameter.dtype).removeprefix("torch."),
                parameter.numel() * parameter.element_size(),
            )
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

    Weights are the floating-point parameters of two or more dimensions; one that two layers share counts once, with
    the first. A summary has ``count``, ``mean``, ``std``
    (that of the population: divide by n), ``low`` and ``high`` (the smallest and largest weight), ``near_zero`` (the
    share, 0 to 1, with |w| <= near_zero) and ``sparsity`` (the share of exact zeros). Take mean and ``std`` in float64.
    Raises a ``ValueError`` where ``model`` is no ``nn.Module``, ``near_zero`` is below 0, a weight is NaN or infinite,
    or there are no weights.
    """
    ### BEGIN SOLUTION
    if not isinstance(model, nn.Module):
        raise ValueError(f"analyze_weight_distribution({type(model).__name__}): give a torch.nn.Module")
    if not near_zero >= 0:
        raise ValueError(f"analyze_weight_distribution(near_zero={near_zero}): give 0 or more")
    layers, seen = {}, set()
    for name, module in model.named_modules():
        own = [p for p in module.parameters(recurse=False) if p.ndim >= 2 and p not in seen]
        seen.update(own)
        if own:
            layers[name] = torch.cat([p.detach().double().flatten() for p in own])
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
# ## Measure
#
# Now ask the real network, and compare the answer with the file that is written for it.

# %% tags=["measure"]
count = CompressionMetrics.count_parameters(watch.model)
size = CompressionMetrics.calculate_model_size(watch.model)
spread = CompressionMetrics.analyze_weight_distribution(watch.model)
receipt = press_and_show(watch, [], "size")
print(
    f"{count.total} parameters, {size.total_bytes} bytes of values, {bytes_of(receipt, 'fp32')} bytes in the file"
)
for name, layer in spread.items():
    print(
        f"{name or 'all weights':12} {layer.count:7} weights, std {layer.std:.3f}, |w| <= 0.001: {layer.near_zero:.1%}"
    )
record(
    1,
    file_kilobytes=bytes_of(receipt, "fp32") / 1000,
    share_in_convolutions=sum(n for name, n in count.by_layer.items() if name.startswith("conv"))
    / count.total,
    largest_layer=max(count.by_layer, key=count.by_layer.get),
    bytes_per_parameter=size.parameter_bytes / count.total,
)
pictures.bars({name: n / 1000 for name, n in count.by_layer.items()}, "thousand parameters")

# %% [markdown]
# ## Reflect
#
# What does one parameter cost in the file, in bytes? Which layer would you press first? Give its name as a
# word in quotes. What you claim is compared with what you measured.

# %% tags=["reflect"]
claim(1, bytes_per_parameter=..., largest_layer=...)

# %% [markdown]
# ## Where you meet this: machines with a megabyte
#
# TinyML is the name for networks on microcontrollers. Two budgets bind at the same time: the weights must
# fit the flash, and the largest input and output of any layer, together, must fit the memory. A network may
# meet the one and miss the other.

# %% tags=["experiment"]
peak = activations_of(watch.model, watch.example_inputs[0][:1]).peak_bytes
weights = CompressionMetrics.calculate_model_size(watch.model, bits=8).total_bytes
print(
    f"with 8 bits a value: weights {weights / FLASH_BYTES:.1%} of 1 MiB of flash, peak {peak / RAM_BYTES:.1%} of 256 KiB"
)

# %% [markdown]
# # Step 2: Magnitude pruning
#
# ## Why
#
# A weight near zero does little: what it multiplies hardly reaches the sum. So set the smallest to exactly
# zero, and train on with the rest (Han and others, 2015). A tenth of the weights is often enough.
#
# The constraint of this step: an app store shows the size of a download, and people leave at the sight of
# it. So the zeros have to make a *file* smaller, and whether they do depends on how the file is written.
# Three patterns of zeros are drawn below. Single weights anywhere hurt accuracy the least and are the
# hardest to use. Two of every four neighbours is what the sparse kernels of some graphics processors run.
# Blocks are what simpler processors can skip.

# %% tags=["given"]
pictures.masks(watch.model.conv3.weight)

# %% [markdown]
# ## Predict
#
# You will set 80 % of the weights to zero, without any training afterwards. How many points of accuracy
# does that cost? By which factor does the ordinary file get smaller? And from which sparsity on, as a
# fraction, does a file pay off that stores only the kept weights, each with its place as a 32-bit number?

# %% tags=["predict"]
predict(2, points_lost_at_80_percent=..., onnx_times_smaller_at_90_percent=..., break_even_with_indices=...)

# %% [markdown]
# ## Write
#
# Sparsity is a fraction from 0 to 1 everywhere in this module. Somebody will hand your function 50 and mean
# a half, and it must not quietly do something else: that is the first trap of this step. The second is
# rounding: the number of weights to prune is rounded once, from the product, so that pruning in two halves
# gives what pruning at once gives.


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
    ``pruned`` the parameters' names, such as ``"fc1.weight"``. Raises a ``ValueError`` for a ``sparsity`` that is no
    number from 0 to 1, another ``scope``, what is no ``nn.Module`` or has no such layers, and NaN or infinite weights.
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
        for layer, values in zip(layers.values(), zeroed, strict=True):
            layer.weight.copy_(values.view_as(layer.weight))
    changes = tuple(
        Change(name, "sparsity", before[name], calculate_sparsity(layer.weight))
        for name, layer in layers.items()
    )
    return Compressed(pruned, changes=changes, pruned=frozenset(f"{name}.weight" for name in layers))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "test_prune_model_by_magnitude", "locked": true, "points": 8, "schema_version": 3, "solution": false, "task": false}
check(prune_model_by_magnitude)
### BEGIN HIDDEN TESTS
check(prune_model_by_magnitude, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# ## Measure
#
# Your function prunes the real network at rising sparsity, and each result is written to a file, run, and
# measured. No training follows yet: this is what the zeros alone do. With `archive`, the same network is
# written a second time into a file that stores one bit for every place and only the weights that are kept.

# %% tags=["measure"]
mine = Engine(score=prune_weights_by_magnitude, name="mine")
sparsities = (0.3, 0.5, 0.7, 0.8, 0.9)
recipes = [
    Recipe(
        name=f"s{s:.0%}".rstrip("%"),
        steps=({"technique": "magnitude", "sparsity": s},),
        ship=("onnx", "archive"),
    )
    for s in sparsities
]
recipes.append(
    Recipe(
        name="random", steps=({"technique": "magnitude", "sparsity": 0.8, "score": "random"},), role="control"
    )
)
sweep = press_and_show(watch, recipes, "pruning", engine=mine)
pictures.curve(
    {"by magnitude": {s: accuracy_of(sweep, f"s{s:.0%}".rstrip("%")) for s in sparsities}},
    "sparsity",
    "accuracy on validation, %",
    ("before pruning", accuracy_of(sweep, "fp32")),
)

# %% [markdown]
# Why do zeros alone save nothing? A float32 zero takes four bytes like any other number. A sparse file
# leaves zeros out, but then it must say where the kept ones belong, and that costs bytes too. Two ways are
# measured here on files: with a 32-bit index for every kept weight, and with one bit for every place. The
# break-even is the sparsity at which a sparse file is as small as the plain one.

# %% tags=["measure"]
from tinypress_course.sparse_files import break_even, file_bytes

kept_as = {"plain": {}, "index for each kept weight": {}, "one bit for each place": {}}
for s in (0.0, 0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9):
    matrix = prune_weights_by_magnitude(watch.model.conv3, s).model.weight.detach().flatten(1)
    for name, size in zip(kept_as, file_bytes(matrix), strict=True):
        kept_as[name][s] = size / 1000
with_indices = break_even(kept_as["plain"], kept_as["index for each kept weight"])
with_bits = break_even(kept_as["plain"], kept_as["one bit for each place"])
record(
    2,
    points_lost_at_80_percent=accuracy_of(sweep, "fp32") - accuracy_of(sweep, "s80"),
    onnx_times_smaller_at_90_percent=bytes_of(sweep, "fp32") / bytes_of(sweep, "s90"),
    break_even_with_indices=with_indices,
    break_even_with_bits=with_bits,
    zeros_alone_shrink_the_onnx_file=bytes_of(sweep, "s90") < bytes_of(sweep, "fp32"),
    archive_time_ratio=time_of(sweep, "s90.archive"),
)
pictures.curve(kept_as, "sparsity", "kB on disk, conv3 alone")

# %% [markdown]
# ## Reflect
#
# Do zeros alone make the ONNX file smaller, True or False? From which sparsity on does each kind of sparse
# file pay off? Look at the time of the archive as well: a file that is smaller need not be faster, and here
# it is unpacked before it runs.

# %% tags=["reflect"]
claim(2, zeros_alone_shrink_the_onnx_file=..., break_even_with_indices=..., break_even_with_bits=...)

# %% [markdown]
# # Step 3: Quantization
#
# ## Why
#
# A float32 weight spends 32 bits to be one of four billion numbers. Eight bits tell 256 apart, and for most
# layers that is plenty. Four times smaller, which is 75 % less, and the sums can be done in whole numbers,
# which small processors do with less energy.
#
# The constraint of this step: a smartwatch runs its sensor network all day, and moving a byte from memory
# costs far more energy than multiplying it. The picture shows the weights of one layer as they are, and
# after they have been squeezed into 16 and into 4 levels.


# %% tags=["given"]
def levels(weight, bits):
    """The nearest of 2**bits - 1 evenly spaced values; a drawing aid."""
    width = weight.abs().max() / (2 ** (bits - 1) - 1)
    return torch.round(weight / width) * width


layer = watch.model.conv2.weight.detach()
pictures.steps_of(layer, {"4 bits": levels(layer, 4), "2 bits": levels(layer, 2)})

# %% [markdown]
# ## Predict
#
# How many times smaller does the file of the watch network get with 8 bits for weights and activations? How
# many points of accuracy does that cost? And one weight of a channel is made fifty times larger: by which
# factor does the error of all the *other* channels grow, if the whole layer shares one scale?

# %% tags=["predict"]
predict(3, int8_times_smaller=..., int8_points_lost=..., outlier_error_grows_times=...)

# %% [markdown]
# ## Write
#
# A scale says how much one step is worth, and a zero point says which whole number stands for 0.0. Round to
# the nearest whole number first, then add the zero point, then keep the result in range.
#
# Two traps wait here. Pruned zeros must come back as exactly 0.0: an affine scale fitted to the smallest
# and the largest weight, without regard to zero, turns every pruned zero into a small number, and the
# sparsity of step 2 is gone. And a layer whose weights are all equal has a range of width zero: dividing by
# it gives NaN.


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
    scale=float32 [channels or 1], zero_point=int32 [channels or 1])``. Raises a ``ValueError`` for anything but a whole
    number of bits from 2 to 8, another scheme, no floating-point weight, and NaN or infinite weights. The layer is not changed.
    """
    ### BEGIN SOLUTION
    weight = getattr(layer, "weight", None)
    if not isinstance(weight, torch.Tensor) or not weight.is_floating_point():
        raise ValueError(
            f"quantize_layer_weights({type(layer).__name__}): the layer has no floating-point weight"
        )
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
# ## Measure
#
# Your `quantize_layer_weights` now packs the real network. At 8 bits the activations are quantized as well
# and the file runs in whole numbers; below that only the weights are packed, into an archive.

# %% tags=["measure"]
mine = Engine(quantize=quantize_layer_weights, name="mine")
recipes = [Recipe(name="int8", steps=({"technique": "quantize", "bits": 8},))]
recipes += [
    Recipe(name=f"int{bits}", steps=({"technique": "quantize", "bits": bits},), ship=("archive",))
    for bits in (6, 4, 3, 2)
]
recipes.append(
    Recipe(
        name="int4-one-scale",
        steps=({"technique": "quantize", "bits": 4, "per_channel": False},),
        ship=("archive",),
    )
)
bits_sweep = press_and_show(watch, recipes, "quantization", engine=mine)

# %% [markdown]
# What does an outlier do? One weight in one channel grows fifty times. With one scale for the whole layer,
# every channel pays for it; with a scale for each channel, only that one does.


# %% tags=["measure"]
def error_of_others(layer, per_channel):
    """The root mean square error of all channels but the first, after quantizing to 8 bits and back."""
    back = dequantize_layer_weights(quantize_layer_weights(layer, 8, per_channel=per_channel))
    return (back - layer.weight.detach())[1:].square().mean().sqrt().item()


plain = copy.deepcopy(watch.model.conv2)
spiked = copy.deepcopy(watch.model.conv2)
with torch.no_grad():
    spiked.weight[0, 0, 0] = 50 * spiked.weight.abs().max()
grows = {
    who: error_of_others(spiked, each) / error_of_others(plain, each)
    for who, each in (("layer", False), ("channel", True))
}
within = [
    b
    for b in (8, 6, 4, 3, 2)
    if accuracy_of(bits_sweep, "fp32") - accuracy_of(bits_sweep, "int8" if b == 8 else f"int{b}")
    <= watch.tolerance
]
record(
    3,
    int8_times_smaller=bytes_of(bits_sweep, "fp32") / bytes_of(bits_sweep, "int8"),
    int8_points_lost=accuracy_of(bits_sweep, "fp32") - accuracy_of(bits_sweep, "int8"),
    outlier_error_grows_times=grows["layer"],
    outlier_error_grows_times_per_channel=grows["channel"],
    fewest_bits_within_tolerance=min(within, default=32),
    per_channel_contains_an_outlier=grows["channel"] < 1.01,
)
pictures.curve(
    {"a scale for each channel": {b: accuracy_of(bits_sweep, f"int{b}") for b in (8, 6, 4, 3, 2)}},
    "bits for a weight",
    "accuracy on validation, %",
    ("float", accuracy_of(bits_sweep, "fp32")),
)

# %% [markdown]
# Now the trap itself. A pruned layer is quantized with an affine scale that ignores zero, the way it is
# often first written, and then with your function. How much of the sparsity is left?

# %% tags=["measure"]
pruned_layer = prune_weights_by_magnitude(watch.model.conv3, 0.8).model
careless = pruned_layer.weight.detach()
step_size = (careless.max() - careless.min()) / 255
careless = torch.round((careless - careless.min()) / step_size) * step_size + careless.min()
careful = dequantize_layer_weights(quantize_layer_weights(pruned_layer, 8, scheme="affine"))
print(
    f"zeros before {calculate_sparsity(pruned_layer):.1%}, careless {calculate_sparsity(careless):.1%}, "
    f"yours {calculate_sparsity(careful):.1%}"
)
record(
    3,
    zeros_left_by_careless_affine=calculate_sparsity(careless),
    zeros_left_by_yours=calculate_sparsity(careful),
)

# %% [markdown]
# ## Reflect
#
# Which is the smallest number of bits that stays within the tolerance of the task? Does a scale for each
# channel keep an outlier's damage to its own channel, True or False?

# %% tags=["reflect"]
claim(3, fewest_bits_within_tolerance=..., per_channel_contains_an_outlier=...)

# %% [markdown]
# # Step 4: Knowledge distillation
#
# ## Why
#
# A label says "biceps curl" and nothing else. A trained network says: mostly a curl, a little like a row,
# not at all like a rotation. A small network that learns from that learns more from every sample (Hinton,
# Vinyals and Dean, 2015). The temperature flattens what the teacher says, so that the small numbers can be
# seen at all.
#
# The constraint of this step: the small network has fewer weights, the same data, and the same hour of
# training. So the question is never whether the student learned. It is whether it learned more than the
# same student *without* a teacher.

# %% tags=["given"]
sample = watch.validation.inputs[0][:64]
with torch.no_grad():
    answers = watch.model.eval()(sample)
doubtful = answers.softmax(1).max(1).values.argmin()
pictures.softened(answers[doubtful], (1, 2, 4, 8), watch.classes)

# %% [markdown]
# ## Predict
#
# A student of half the width, which has about a quarter of the weights, is taught by the watch network. How
# many points of accuracy on validation does it gain over the same student trained on the labels alone? A
# negative number means a loss.

# %% tags=["predict"]
predict(4, teacher_gain_points=...)

# %% [markdown]
# ## Write
#
# The loss compares two distributions at the same temperature, and equal logits must cost nothing. The soft
# part's gradient gets smaller by the square of the temperature: the loss multiplies it back, so that
# `alpha` means the same at every T.


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
    ``schedule.learning_rate`` (by default ``Schedule(epochs=10, learning_rate=1e-3)``). Every epoch goes through every
    sample once; its last batch may be smaller, and one of a single sample may be left out. The teacher answers in
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
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay
    )
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
                raise ValueError(
                    f"train_with_distillation: the loss is {value.item()}; lower the learning rate"
                )
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
    return Compressed(
        student.eval(), changes=(Change("", "distillation steps", 0, schedule.epochs * batches),)
    )
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "test_train_with_distillation", "locked": true, "points": 10, "schema_version": 3, "solution": false, "task": false}
check(train_with_distillation)
### BEGIN HIDDEN TESTS
check(train_with_distillation, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# ## Measure
#
# Three seeds of each, because one could be luck: the student with your loss, and the control, the same
# student trained on the labels. Each gets the same number of steps.


# %% tags=["measure"]
def accuracy_of_network(network):
    """Accuracy on validation, 0 to 100, in PyTorch."""
    with torch.no_grad():
        right = network(*watch.validation.inputs).argmax(1) == watch.validation.targets
    return 100 * right.double().mean().item()


def labels_alone(student, teacher, labels):
    return nn.functional.cross_entropy(student, labels)


gains = []
for seed in range(3):
    torch.manual_seed(seed)
    student = type(watch.model)(width=32)
    schedule = Schedule(epochs=8, learning_rate=1e-3, seed=seed)
    results = {}
    for name, loss in (("taught", DistillationLoss(4.0, 0.7)), ("alone", labels_alone)):
        trained = train_with_distillation(
            student, watch.model, watch.train, watch.validation, loss=loss, schedule=schedule
        )
        results[name] = accuracy_of_network(trained.model)
    gains.append(results["taught"] - results["alone"])
    print(f"seed {seed}: taught {results['taught']:.1f} %, alone {results['alone']:.1f} %")
mean = sum(gains) / len(gains)
spread_of_gains = max(gains) - min(gains)
record(4, teacher_gain_points=mean, teacher_gain_spread=spread_of_gains, every_seed_gained=min(gains) > 0)
pictures.bars({f"seed {seed}": gain for seed, gain in enumerate(gains)}, "points gained by the teacher")

# %% [markdown]
# ## Reflect
#
# Did the teacher help in every seed, True or False? If the gains differ more among the seeds than their
# mean, three seeds cannot tell, and the honest sentence is "we cannot tell yet".

# %% tags=["reflect"]
claim(4, every_seed_gained=...)

# %% [markdown]
# ## Where you meet this: DistilBERT
#
# DistilBERT keeps every second layer of a language model, starts from the teacher's own weights, and lets
# the teacher teach: its authors report a network 40 % smaller and 60 % faster that keeps 97 % of the
# quality (Sanh and others, 2019). The same move on a small network of six blocks, with its control: the
# same half-depth network from scratch, without the teacher.

# %% tags=["experiment"]
from tinypress_course.bench import RUNS
from tinypress_course.experiments.half_the_layers import halve

halved = halve(watch, RUNS / "half-the-layers")
for name, size in halved.file_bytes.items():
    print(
        f"{name:12} {size / 1000:6.1f} kB, {halved.time_ratio[name]:.2f} of the time, {halved.accuracy[name]:.1f} %"
    )

# %% [markdown]
# # Step 5: Structured pruning
#
# ## Why
#
# Zeros in a matrix are still multiplied. Remove a whole neuron and there is a row less to compute, in every
# runtime and on every processor, with no sparse format at all (Li and others, 2017). But a neuron does not
# stand alone: the batch norm after it has its mean, and the next layer has a column of weights that reads
# it. All of them must go together, or the network breaks, which you will only see if you run it.
#
# The constraint of this step: an edge camera gets thirty pictures a second. What counts is milliseconds in
# the runtime, not weights on paper. The picture shows three neurons of one layer, and where the next layer
# reads them.

# %% tags=["given"]
pictures.cascade(watch.model.conv2.weight, watch.model.conv3.weight, (2, 7, 11))

# %% [markdown]
# ## Predict
#
# Half of the neurons of every hidden layer go. By which factor does the file get smaller? And what share of
# the time is left, from 0 to 1?

# %% tags=["predict"]
predict(5, half_width_times_smaller=..., half_width_time_ratio=...)

# %% [markdown]
# ## Write
#
# `index_select` keeps some rows or columns. Where a convolution is followed by a flatten and a Linear, one
# channel has several places in the Linear's input. Your function runs the examples through the network
# before it gives it back: a network that was never run is a network that may not run.


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
        raise ValueError(
            f"compute_neuron_importance({type(layer).__name__}): give a linear layer or a convolution"
        )
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
        raise ValueError(
            f"compute_neuron_importance(method={method!r}): give l1, l2, variance, activation or random"
        )
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
        seen, looked_at = [], copy.deepcopy(model).eval()
        looked_at.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output: seen.append(
                output.detach().clone()
            )  # a ReLU in place would change it
        )
        with torch.no_grad():
            looked_at(*calibration)
        activations = seen[0]
    scores = compute_neuron_importance(modules[layer], importance, activations=activations, seed=seed)
    width = len(scores)
    gone = min(round(ratio * width), width - 1)
    keep = torch.argsort(scores, stable=True)[gone:].sort().values

    def cut(module: nn.Module, name: str, axis: int, places: torch.Tensor) -> None:
        old = getattr(module, name)
        if old is not None:
            new = old.detach().index_select(axis, places)
            setattr(
                module, name, nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
            )

    cut(modules[layer], "weight", 0, keep)
    cut(modules[layer], "bias", 0, keep)
    setattr(
        modules[layer], "out_features" if isinstance(modules[layer], nn.Linear) else "out_channels", len(keep)
    )
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
        copy.deepcopy(pruned).eval()(
            *example_inputs
        )  # in training mode it would move the batch norms' averages
    return Compressed(pruned, changes=(Change(layer, "neurons", width, len(keep)),))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "test_prune_layer_neurons", "locked": true, "points": 12, "schema_version": 3, "solution": false, "task": false}
check(prune_layer_neurons)
### BEGIN HIDDEN TESTS
check(prune_layer_neurons, hidden=True)
### END HIDDEN TESTS

# %% [markdown]
# ## Measure
#
# Your function shrinks the real network layer by layer, trained on for a few epochs afterwards; beside it
# the control in which the neurons to remove are drawn by lot, and a network of that size from scratch.

# %% tags=["measure"]
mine = Engine(shrink=prune_layer_neurons, name="mine")
recover = {"technique": "recover"}
recipes = [
    Recipe(name="half", steps=({"technique": "shrink", "ratio": 0.5},)),
    Recipe(name="half-recovered", steps=({"technique": "shrink", "ratio": 0.5}, recover)),
    Recipe(
        name="half-random",
        role="control",
        control_of="half-recovered",
        steps=({"technique": "shrink", "ratio": 0.5, "importance": "random"}, recover),
    ),
    Recipe(
        name="small-dense",
        role="control",
        control_of="half-recovered",
        steps=({"technique": "student", "ratio": 0.5}, recover),
    ),
]
shrunk = press_and_show(watch, recipes, "shrinking", engine=mine)
record(
    5,
    half_width_times_smaller=bytes_of(shrunk, "fp32") / bytes_of(shrunk, "half"),
    half_width_time_ratio=time_of(shrunk, "half"),
    points_between_importance_and_lot=accuracy_of(shrunk, "half-recovered")
    - accuracy_of(shrunk, "half-random"),
    importance_beat_the_lot=accuracy_of(shrunk, "half-recovered") > accuracy_of(shrunk, "half-random"),
    points_between_shrunk_and_from_scratch=accuracy_of(shrunk, "half-recovered")
    - accuracy_of(shrunk, "small-dense"),
)
pictures.trade_off(
    {c.name: (time_of(shrunk, c.name), accuracy_of(shrunk, c.name)) for c in shrunk.candidates},
    "time against the float network",
    "accuracy on validation, %",
)

# %% [markdown]
# ## Reflect
#
# By about which factor does the number of bytes fall when every width is halved, and why is it not two? Did
# the choice by importance beat the lot, True or False? Say it as your measurement says it, even where that
# is not what the book says.

# %% tags=["reflect"]
claim(5, half_width_times_smaller=..., importance_beat_the_lot=...)

# %% [markdown]
# ## Where you meet this: MobileNet, and searching for an architecture
#
# MobileNet splits each convolution into one that looks at places and one that mixes channels, which needs a
# fraction of the multiplications (Howard and others, 2017). A network that was *designed* frugal leaves
# less for pruning to take. Both are trained alike here. Compare how much the multiplications fall with how
# much the time falls.

# %% tags=["experiment"]
from tinypress_course.experiments.separable import full_against_separable

for name, each in full_against_separable(watch, RUNS / "separable").items():
    print(
        f"{name:10} {each.macs / 1e6:.2f} million MACs, {each.latency_ms * 1000:.0f} µs, "
        f"{each.file_bytes / 1000:.1f} kB, {each.accuracy:.1f} %"
    )

# %% [markdown]
# Half of every layer is only the simplest choice. Architecture search tries other widths of about the same
# size and keeps the best on validation. The first row is the even cut; the others were drawn at random,
# which is what a cleverer search has to beat.

# %% tags=["experiment"]
from tinypress_course.experiments.search import search_widths

for found in search_widths(watch):
    print(f"widths {found.widths}: {found.parameters} parameters, {found.accuracy:.1f} %")

# %% [markdown]
# # Step 6: Comparison and the pipeline
#
# ## Why
#
# Every technique looks good alone. An honest comparison puts all of them through the same files, the same
# runtime and the same test, chooses on data that is not the test, and sets a control beside every claim:
# the same number of zeros at random places, the same small network without its history. Then they are
# combined, and the order matters.
#
# The constraints of this step are four places to ship to: a phone, where the download counts; an edge
# camera, where time counts; a cloud bill, where time counts and is multiplied by millions; and a watch
# battery, where energy counts. The picture is what you have so far.

# %% tags=["given"]
pictures.trade_off(
    {c.name: (bytes_of(sweep, c.name) / 1000, accuracy_of(sweep, c.name)) for c in sweep.candidates}
    | {
        c.name: (bytes_of(bits_sweep, c.name) / 1000, accuracy_of(bits_sweep, c.name))
        for c in bits_sweep.candidates
    }
    | {c.name: (bytes_of(shrunk, c.name) / 1000, accuracy_of(shrunk, c.name)) for c in shrunk.candidates},
    "kB on disk",
    "accuracy on validation, %",
)

# %% [markdown]
# ## Predict
#
# Which of the candidates will be the smallest file within the tolerance: `"prune.archive"`, `"int8"`,
# `"shrink"`, `"distill"` or `"prune+int8.archive"`? Which the fastest?

# %% tags=["predict"]
predict(6, smallest_within_tolerance=..., fastest_within_tolerance=...)

# %% [markdown]
# ## Write
#
# First the comparison, as recipes. Then a function that designs a pipeline for a budget: press no harder
# than you must, and let each step that hurts be followed by one that heals. Quantize last, since training
# would move the weights off their steps.


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
        Recipe(
            name="prune-random",
            role="control",
            control_of="prune",
            steps=({**pruned, "score": "random"}, recover),
        ),
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

# %% [markdown]
# ## Measure
#
# All your functions together. This presses every recipe of your comparison with your own techniques, which
# takes a minute or two.

# %% tags=["measure"]
mine = Engine(
    score=prune_weights_by_magnitude,
    quantize=quantize_layer_weights,
    loss=DistillationLoss,
    shrink=prune_layer_neurons,
    name="mine",
)
receipt = compare_compression_techniques(watch, RUNS / "comparison", engine=mine)
show(receipt)
good = [
    c
    for c in receipt.candidates
    if c.role != "control" and accuracy_of(receipt, "fp32") - accuracy_of(receipt, c.name) <= watch.tolerance
]


def best(candidates, cost):
    """The cheapest, and all that cost at most 5 % more, since a difference that small is noise."""
    least = min(cost(c) for c in candidates)
    return " or ".join(sorted(c.name for c in candidates if cost(c) <= 1.05 * least))


def milliseconds(candidate):
    return candidate.latency_ms.median


small = [c for c in good if c.artifact.bytes <= bytes_of(receipt, "fp32") / 3]
record(
    6,
    smallest_within_tolerance=best(good, lambda c: c.artifact.bytes),
    fastest_within_tolerance=best(good, milliseconds),
    phone=best(good, lambda c: c.artifact.bytes),
    edge_camera=best(good, milliseconds),
    cloud_bill=best(good, milliseconds),
    watch_battery=best(small or good, milliseconds),
)
pictures.trade_off(
    {c.name: (c.artifact.bytes / 1000, accuracy_of(receipt, c.name)) for c in receipt.candidates},
    "kB on disk",
    "accuracy on validation, %",
)

# %% [markdown]
# Now four places to ship to. A phone gets a tenth of the float file, an edge camera a third of it, and so
# on. For each budget your `design_pipeline` writes the recipe and your functions carry it out: does the
# file fit, and does it still work?

# %% tags=["measure"]
whole = bytes_of(receipt, "fp32")
budgets = {"phone": 0.10, "edge_camera": 0.33, "cloud_bill": 1.2, "watch_battery": 0.06}
for place, share in budgets.items():
    designed = design_pipeline(int(share * whole), whole)
    recipe = Recipe(name=place, steps=designed.steps, ship=designed.ship)
    pressed = press_and_show(watch, [recipe], f"pipeline-{place}", engine=mine)
    shipped = pressed.candidates[-1]
    fits = shipped.artifact.bytes <= share * whole
    lost = accuracy_of(pressed, "fp32") - accuracy_of(pressed, shipped.name)
    print(
        f"{place}: {shipped.artifact.bytes / 1000:.1f} of {share * whole / 1000:.1f} kB, "
        f"{'fits' if fits else 'does not fit'}, {lost:.1f} points lost"
    )
    record(6, **{f"{place}_fits": fits})

# %% [markdown]
# ## Reflect
#
# Which candidate of your comparison would you ship to each place, by your own measurements? Name the file,
# of those within the tolerance. For the phone the bytes count. For the camera and the cloud bill the time
# counts. For the battery the time counts among the files of at most a third of the float bytes: less to
# move, and less to do.

# %% tags=["reflect"]
claim(6, phone=..., edge_camera=..., cloud_bill=..., watch_battery=...)

# %% [markdown]
# # Where this leads
#
# *Kernels* make the arithmetic of step 3 fast: eight-bit products, several in one instruction, and sparse
# kernels for the patterns of step 2. *Benchmarking* is the craft behind every number here: medians,
# intervals, taking turns so that a busy machine hurts both sides alike. *Operations* begin when the file is
# shipped: versions, watching the inputs drift, pressing again.
#
# Export your functions with `tito export 10_compression`, and put them beside the toolkit's with `tito
# run`.
