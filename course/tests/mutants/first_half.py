"""Wrong versions of the functions about size, pruning and quantization."""

from functools import partial

from mutants import Mutant

_count, _size, _spread, _sparsity, _layer, _model, _quantize, _back = (
    partial(Mutant, name)
    for name in (
        "count_parameters",
        "calculate_model_size",
        "analyze_weight_distribution",
        "calculate_sparsity",
        "prune_weights_by_magnitude",
        "prune_model_by_magnitude",
        "quantize_layer_weights",
        "dequantize_layer_weights",
    )
)

MUTANTS: tuple[Mutant, ...] = (
    _count("sum(parameter.numel() for parameter in own)", "len(own)", ("tensors instead of values",)),
    _count("total=sum(by_layer.values())", "total=trainable", ("frozen ones missing",)),
    _count(
        " for parameter in own if parameter.requires_grad", " for parameter in own", ("everything trainable",)
    ),
    _count("seen.update(own)", "pass", ("shared ones twice",)),
    _count(
        "[parameter for parameter in module.parameters(recurse=False) if parameter not in seen]",
        "list(module.parameters())",
        ("counted at every level",),
    ),
    _size(
        "math.ceil(parameter.numel() * bits / 8)",
        "parameter.numel() * (bits // 8)",
        ("rounded before multiplying",),
    ),
    _size("math.ceil(parameter.numel() * bits / 8)", "parameter.numel() * bits // 8", ("rounded down",)),
    _size("math.ceil(parameter.numel() * bits / 8)", "parameter.numel() * bits", ("bits taken for bytes",)),
    _size("parameter.ndim >= 2 and ", "", ("biases packed",)),
    _size("seen.update(own)", "pass", ("shared ones twice",)),
    _size(
        "total_bytes=parameter_bytes + buffer_bytes",
        "total_bytes=parameter_bytes",
        ("buffers not in the total",),
    ),
    _spread("seen.update(own)", "pass", ("shared ones twice",)),
    _spread("correction=0", "correction=1", ("deviation of a sample",)),
    _spread("values.abs() <= near_zero", "values.abs() < near_zero", ("threshold left out",)),
    _spread("values.mean().item()", "values.abs().mean().item()", ("mean of magnitudes",)),
    _spread("(values == 0).double()", "(values.abs() <= near_zero).double()", ("sparsity of small ones",)),
    _sparsity("return zeros / total if total", "return 1 - zeros / total if total", ("density",)),
    _sparsity("return zeros / total if total", "return 100 * zeros / total if total", ("percent",)),
    _sparsity("(tensor == 0).sum()", "(tensor.abs() < 1e-6).sum()", ("small ones are zeros",)),
    _sparsity(
        "return zeros / total if total else 0.0", "return zeros / total", ("division by an empty tensor",)
    ),
    _layer("smallest_first[: round(", "smallest_first[-round(", ("largest pruned",)),
    _layer("weight.detach().abs().flatten()", "weight.detach().flatten()", ("sign taken for size",)),
    _layer("weight.detach().abs()", "-weight.detach().abs()", ("largest pruned",)),
    _layer("round(sparsity * weight.numel())", "int(sparsity * weight.numel())", ("number rounded down",)),
    _layer(
        "round(sparsity * weight.numel())",
        "round(sparsity / 100 * weight.numel())",
        ("percent for fraction",),
    ),
    _layer("copy.deepcopy(layer)", "layer", ("input changed",)),
    _layer("now=calculate_sparsity(pruned.weight)", "now=sparsity", ("told what was asked",)),
    _model('scope == "global"', "True", ("always together",)),
    _model('if scope == "global":', "if False:", ("never together",)),
    _model("copy.deepcopy(model)", "model", ("input changed",)),
    _model(
        "isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))", "isinstance(m, nn.Linear)", ("no convolutions",)
    ),
    _quantize("2**bits - 1", "2**bits", ("numbers counted, wrapped around",)),
    _quantize("2 ** (bits - 1) - 1", "2 ** (bits - 1)", ("half the numbers counted, wrapped around",)),
    _quantize("torch.round(rows / scale[:, None])", "torch.trunc(rows / scale[:, None])", ("cut off",)),
    _quantize(
        "weight.flatten(1) if per_channel else weight.reshape(1, -1)",
        "weight.reshape(1, -1)",
        ("one scale for all channels",),
    ),
    _quantize(" + zero_point[:, None]", "", ("zero point not added",)),
    _quantize(".clamp(max=0), rows", ", rows", ("range without zero",)),
    _quantize("    scale[width == 0] = 1.0\n", "", ("scale of zero kept", "division by a range of zero")),
    _quantize("torch.maximum(-low, high)", "high", ("largest instead of largest magnitude",)),
    _back(" - quantized.zero_point.view(-1, 1)", "", ("zero point forgotten",)),
    _back(" - quantized.zero_point", " + quantized.zero_point", ("zero point added",)),
    _back('quantized.scheme == "symmetric"', "True", ("unsigned numbers read as signed",)),
    _back(" * quantized.scale", " / quantized.scale", ("divided by the scale",)),
)
