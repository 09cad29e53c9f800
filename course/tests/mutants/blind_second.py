"""Wrong versions written by somebody who had not seen the list of known mistakes: the second set."""

from mutants import Mutant

MUTANTS: tuple[Mutant, ...] = (
    # frozen parameters are left out of the total and of their layer
    Mutant(
        "count_parameters",
        "by_layer[name] = sum(parameter.numel() for parameter in own)",
        "by_layer[name] = sum(parameter.numel() for parameter in own if parameter.requires_grad)",
        ("frozen ones missing everywhere",),
    ),
    # looks only at the direct children: nested layers are lumped together and the model's own parameters
    # lost
    Mutant(
        "count_parameters",
        "for name, module in model.named_modules():\n            own = [parameter for parameter in module.parameters(recurse=False) if parameter not in seen]",
        "for name, module in model.named_children():\n            own = list(module.parameters())",
        ("direct children alone",),
    ),
    # rounds each value up to a whole byte, so fewer than 8 bits save nothing
    Mutant(
        "calculate_model_size",
        "math.ceil(parameter.numel() * bits / 8)",
        "parameter.numel() * math.ceil(bits / 8)",
        ("a whole byte each",),
    ),
    # takes every buffer for float32 (num_batches_tracked is int64)
    Mutant(
        "calculate_model_size",
        "buffer.numel() * buffer.element_size()",
        "buffer.numel() * 4",
        ("four bytes each",),
    ),
    # does not count exact zeros as near zero
    Mutant(
        "analyze_weight_distribution",
        "near_zero=(values.abs() <= near_zero).double().mean().item()",
        "near_zero=((values.abs() <= near_zero) & (values != 0)).double().mean().item()",
        ("zeros not near zero",),
    ),
    # computes the statistics in the weights' own precision instead of float64
    Mutant("analyze_weight_distribution", "p.detach().double().flatten()", "p.detach().flatten()", ()),
    # averages the layers' sparsities, regardless of how many weights each layer has
    Mutant(
        "calculate_sparsity",
        "return zeros / total if total else 0.0",
        "return sum((tensor == 0).double().mean().item() for tensor in tensors) / len(tensors) if total else 0.0",
        ("average of layers",),
    ),
    # counts tiny weights as zeros (comparison with a tolerance)
    Mutant(
        "calculate_sparsity",
        "int((tensor == 0).sum())",
        "int(torch.isclose(tensor, torch.zeros_like(tensor)).sum())",
        ("small ones are zeros",),
    ),
    # prunes by a threshold: equal magnitudes all go, more than asked for
    Mutant(
        "prune_weights_by_magnitude",
        "    with torch.no_grad():\n        pruned.weight.view(-1)[smallest_first[: round(sparsity * weight.numel())]] = 0.0",
        "    count = round(sparsity * weight.numel())\n    with torch.no_grad():\n        if count:\n            threshold = weight.abs().flatten()[smallest_first[count - 1]]\n            pruned.weight[weight.abs() <= threshold] = 0.0",
        ("threshold takes its equals along",),
    ),
    # takes the sparsity as a share of the weights that are not zero yet
    Mutant(
        "prune_weights_by_magnitude",
        "smallest_first[: round(sparsity * weight.numel())]",
        "smallest_first[: int((weight == 0).sum()) + round(sparsity * int((weight != 0).sum()))]",
        ("sparsity of what is left",),
    ),
    # prunes everything that has a weight, batch norm too
    Mutant(
        "prune_model_by_magnitude",
        "if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))}",
        'if isinstance(getattr(m, "weight", None), nn.Parameter)}',
        ("batch norms pruned",),
    ),
    # global ranking of magnitudes relative to each layer's largest instead of the magnitudes themselves
    Mutant(
        "prune_model_by_magnitude",
        "        row.weight = nn.Parameter(torch.cat(flats).view(1, -1))\n        whole = prune_weights_by_magnitude(row, sparsity).model.weight.detach().flatten()",
        "        relative = [flat.abs() / flat.abs().max().clamp(min=1e-12) for flat in flats]\n        row.weight = nn.Parameter(torch.cat(relative).view(1, -1))\n        kept = prune_weights_by_magnitude(row, sparsity).model.weight.detach().flatten() != 0\n        whole = torch.cat(flats) * kept",
        ("ranked within the layer",),
    ),
    # symmetric scale from half the range instead of the largest magnitude: the longer side is clipped
    Mutant(
        "quantize_layer_weights",
        "torch.maximum(-low, high)",
        "(high - low) / 2",
        ("half the distance of the ends",),
    ),
    # the zero point is cut off to a whole number instead of rounded
    Mutant(
        "quantize_layer_weights",
        "torch.round(-low / scale.double()).clamp(least, most).to(torch.int32)",
        "(-low / scale.double()).clamp(least, most).to(torch.int32)",
        ("zero point cut off",),
    ),
    # takes a zero point of 0 for symmetric: affine weights that are all positive are read as signed
    Mutant(
        "dequantize_layer_weights",
        'signed=quantized.scheme == "symmetric"',
        "signed=not bool(quantized.zero_point.any())",
        ("sign by the zero point",),
    ),
    # the scales run along the last axis instead of the output channels
    Mutant(
        "dequantize_layer_weights",
        "    rows = q.view(channels, -1) - quantized.zero_point.view(-1, 1)\n    return (rows.float() * quantized.scale.view(-1, 1)).view(quantized.shape)",
        "    columns = q.view(-1, channels) - quantized.zero_point.view(1, -1)\n    return (columns.float() * quantized.scale.view(1, -1)).view(quantized.shape)",
        ("scales along the inputs",),
    ),
    # the temperature softens the hard part (labels) too
    Mutant(
        "DistillationLoss",
        "nn.functional.cross_entropy(student_logits, labels)",
        "nn.functional.cross_entropy(student_logits / self.temperature, labels)",
        ("cross entropy at the temperature",),
    ),
    # cross entropy with the teacher's distribution instead of the divergence: equal logits still cost
    # its entropy
    Mutant(
        "DistillationLoss",
        '        soft = nn.functional.kl_div(\n            torch.log_softmax(student_logits / self.temperature, dim=1),\n            torch.log_softmax(teacher_logits / self.temperature, dim=1),\n            reduction="batchmean",\n            log_target=True,\n        )',
        "        soft = nn.functional.cross_entropy(\n            student_logits / self.temperature, torch.softmax(teacher_logits / self.temperature, dim=1)\n        )",
        ("cross entropy with the teacher",),
    ),
    # the best state is not copied, so it trains on and the last epoch comes back
    Mutant(
        "train_with_distillation",
        "best, best_state = value, copy.deepcopy(student.state_dict())",
        "best, best_state = value, student.state_dict()",
        ("last epoch",),
    ),
    # training mode is set once, before the loop: from the second epoch on it trains in evaluation mode
    Mutant(
        "train_with_distillation",
        "    for _ in range(schedule.epochs):\n        student.train()",
        "    student.train()\n    for _ in range(schedule.epochs):",
        ("training mode only once",),
    ),
    # magnitude of the mean activation instead of mean of the magnitudes: signs cancel
    Mutant(
        "compute_neuron_importance",
        "activations.detach().double().abs().transpose(0, 1).flatten(1).mean(1)",
        "activations.detach().double().transpose(0, 1).flatten(1).mean(1).abs()",
        ("magnitude after averaging activations",),
    ),
    # the bias counts as one of the incoming weights
    Mutant(
        "compute_neuron_importance",
        "    w = layer.weight.detach().double().flatten(1)",
        "    w = layer.weight.detach().double().flatten(1)\n    if layer.bias is not None:\n        w = torch.cat([w, layer.bias.detach().double()[:, None]], dim=1)",
        ("bias counted",),
    ),
    # takes the flattened channels to lie interleaved: the Linear loses the wrong columns
    Mutant(
        "prune_layer_neurons",
        "(keep[:, None] * places_each + torch.arange(places_each)).flatten()",
        "(keep[:, None] + width * torch.arange(places_each)).flatten()",
        ("places of a channel interleaved",),
    ),
    # the batch norm keeps its first places instead of those of the neurons that stay
    Mutant(
        "prune_layer_neurons",
        "cut(module, name, 0, keep)",
        "cut(module, name, 0, torch.arange(len(keep)))",
        ("first places of the batch norm",),
    ),
    # the random control has another number of zeros than the candidate it controls
    Mutant(
        "compare_compression_techniques",
        '({**pruned, "score": "random"}, recover)',
        '({**pruned, "sparsity": 0.5, "score": "random"}, recover)',
        ("control with other zeros",),
    ),
    # the control of distillation is a shrunk original with inherited weights, not the same small network
    # untaught
    Mutant(
        "compare_compression_techniques",
        'control_of="distill", steps=(small, recover)',
        'control_of="distill", steps=({"technique": "shrink", "ratio": 0.5}, recover)',
        ("control shrunk, not begun anew",),
    ),
    # margin as 15 % on top of the file instead of 15 % of the budget
    Mutant(
        "design_pipeline",
        "0.85 * budget_bytes / float_bytes",
        "budget_bytes / 1.15 / float_bytes",
        ("margin on the wrong side",),
    ),
    # takes the bytes to fall linearly with the width, not with its square
    Mutant(
        "design_pipeline",
        "ratio = 1 - math.sqrt(room / smallest)",
        "ratio = 1 - room / smallest",
        ("neurons counted once",),
    ),
)
