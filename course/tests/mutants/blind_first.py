"""Wrong versions written by somebody who had not seen the list of known mistakes: the first set."""

from mutants import Mutant

MUTANTS: tuple[Mutant, ...] = (
    # counts only parameters called weight or bias (misses an LSTM's, a positional embedding, a bare
    # scale)
    Mutant(
        "count_parameters",
        "own = [parameter for parameter in module.parameters(recurse=False) if parameter not in seen]",
        'own = [p for n, p in module.named_parameters(recurse=False) if n in ("weight", "bias") and p not in seen]',
        ("only weight and bias",),
    ),
    # calls a whole layer trainable or frozen by its first parameter alone
    Mutant(
        "count_parameters",
        "trainable += sum(parameter.numel() for parameter in own if parameter.requires_grad)",
        "trainable += by_layer[name] if own[0].requires_grad else 0",
        ("layer judged by its first parameter",),
    ),
    # takes bits/32 of the old bytes, though the network need not be float32
    Mutant(
        "calculate_model_size",
        "math.ceil(parameter.numel() * bits / 8)",
        "math.ceil(parameter.numel() * parameter.element_size() * bits / 32)",
        ("share of the old bytes",),
    ),
    # leaves out whole-number buffers, such as a batch norm's counter
    Mutant(
        "calculate_model_size",
        "for buffer in module.buffers(recurse=False):\n",
        "for buffer in module.buffers(recurse=False):\n            if not buffer.is_floating_point():\n                continue\n",
        ("buffers of whole numbers left out",),
    ),
    # takes the root mean square for the standard deviation (does not subtract the mean)
    Mutant(
        "analyze_weight_distribution",
        "std=values.std(correction=0).item()",
        "std=values.square().mean().sqrt().item()",
        ("mean not taken off",),
    ),
    # tells weights by their name, so that a batch norm's weight counts and an LSTM's matrices do not
    Mutant(
        "analyze_weight_distribution",
        "for p in module.parameters(recurse=False) if p.ndim >= 2",
        'for n, p in module.named_parameters(recurse=False) if n == "weight"',
        ("weights by their name",),
    ),
    # counts nearly zero as zero (isclose with its default tolerance)
    Mutant(
        "calculate_sparsity",
        "int((tensor == 0).sum())",
        "int(torch.isclose(tensor, torch.zeros_like(tensor)).sum())",
        ("small ones are zeros",),
    ),
    # counts every matrix of the module, an embedding's too, not only linear and convolutional weights
    Mutant(
        "calculate_sparsity",
        "tensors = [layer.weight for layer in layers]",
        "tensors = [p for p in module_or_tensor.parameters() if p.ndim >= 2]",
        ("embeddings counted",),
    ),
    # prunes below a quantile: too few with equal magnitudes, and never all of them at sparsity 1
    Mutant(
        "prune_weights_by_magnitude",
        "pruned.weight.view(-1)[smallest_first[: round(sparsity * weight.numel())]] = 0.0",
        "limit = torch.quantile(weight.detach().abs().flatten(), sparsity)\n        pruned.weight[weight.abs() < limit] = 0.0",
        ("quantile as a threshold",),
    ),
    # takes the fraction of the weights that are still nonzero, not of all weights
    Mutant(
        "prune_weights_by_magnitude",
        "round(sparsity * weight.numel())",
        "int((weight == 0).sum()) + round(sparsity * int((weight != 0).sum()))",
        ("sparsity of what is left",),
    ),
    # ranks weights relative to their layer's mean magnitude, which is no global ranking
    Mutant(
        "prune_model_by_magnitude",
        "row.weight = nn.Parameter(torch.cat(flats).view(1, -1))\n        whole = prune_weights_by_magnitude(row, sparsity).model.weight.detach().flatten()\n",
        "relative = [flat / flat.abs().mean().clamp(min=1e-12) for flat in flats]\n        row.weight = nn.Parameter(torch.cat(relative).view(1, -1))\n        kept = prune_weights_by_magnitude(row, sparsity).model.weight.detach().flatten() != 0\n        whole = torch.cat(flats) * kept\n",
        ("ranked within the layer",),
    ),
    # reports that every layer was dense before, also where it was pruned already
    Mutant(
        "prune_model_by_magnitude",
        'Change(name, "sparsity", before[name], ',
        'Change(name, "sparsity", 0.0, ',
        ("dense before",),
    ),
    # takes the symmetric scale from half the range, not from the largest magnitude (clips a lopsided
    # channel)
    Mutant(
        "quantize_layer_weights",
        "least, width = -most, torch.maximum(-low, high)",
        "least, width = -most, (high - low) / 2",
        ("half the distance of the ends",),
    ),
    # adds the unrounded zero point before rounding, so that many values land one step off
    Mutant(
        "quantize_layer_weights",
        "q = (torch.round(rows / scale[:, None]) + zero_point[:, None])",
        'shift = -low / scale.double() if scheme == "affine" else torch.zeros_like(low)\n    q = torch.round(rows / scale[:, None] + shift[:, None])',
        ("zero point added before rounding",),
    ),
    # tells signed from unsigned by the zero point, which is 0 also in affine where no weight is negative
    Mutant(
        "dequantize_layer_weights",
        'signed=quantized.scheme == "symmetric"',
        "signed=not bool(quantized.zero_point.any())",
        ("sign by the zero point",),
    ),
    # holds the whole numbers in int8, where those of affine above 127 wrap around
    Mutant(
        "dequantize_layer_weights",
        "rows = q.view(channels, -1) -",
        "rows = q.to(torch.int8).view(channels, -1) -",
        ("unsigned numbers read as signed",),
    ),
    # uses the cross entropy with the soft targets for the divergence: the teacher's entropy stays in
    Mutant(
        "DistillationLoss",
        'soft = nn.functional.kl_div(\n            torch.log_softmax(student_logits / self.temperature, dim=1),\n            torch.log_softmax(teacher_logits / self.temperature, dim=1),\n            reduction="batchmean",\n            log_target=True,\n        )',
        "soft = nn.functional.cross_entropy(\n            student_logits / self.temperature, torch.softmax(teacher_logits / self.temperature, dim=1)\n        )",
        ("cross entropy with the teacher",),
    ),
    # multiplies the hard part by the square of the temperature as well
    Mutant(
        "DistillationLoss",
        "self.alpha * self.temperature**2 * soft + (1 - self.alpha) * hard",
        "self.temperature**2 * (self.alpha * soft + (1 - self.alpha) * hard)",
        ("both parts scaled",),
    ),
    # shuffles the samples but not the teacher's answers
    Mutant(
        "train_with_distillation",
        "taught[some]",
        "taught[batch * schedule.batch_size : batch * schedule.batch_size + len(some)]",
        ("teacher's answers of other samples",),
    ),
    # keeps the epoch with the best validation accuracy instead of the least validation loss
    Mutant(
        "train_with_distillation",
        "value = float(loss(student(*validation.inputs), judged, validation.targets))",
        "value = float((student(*validation.inputs).argmax(1) != validation.targets).double().mean())",
        (),
    ),
    # takes the variance about the whole layer's mean instead of each neuron's own
    Mutant(
        "compute_neuron_importance",
        "importance = w.var(dim=1, correction=0)",
        "importance = (w - w.mean()).square().mean(1)",
        ("mean of the layer",),
    ),
    # reshapes [N, out, ...] to [out, ...] without transposing, which mixes samples with neurons
    Mutant(
        "compute_neuron_importance",
        ".abs().transpose(0, 1).flatten(1).mean(1)",
        ".abs().reshape(len(w), -1).mean(1)",
        ("activations of each sample",),
    ),
    # rounds the number that stays instead of the number that goes (one off at halves)
    Mutant(
        "prune_layer_neurons",
        "gone = min(round(ratio * width), width - 1)",
        "gone = width - max(1, round((1 - ratio) * width))",
        ("those that stay rounded",),
    ),
    # puts a fresh batch norm in place: weight and bias are cut, mean and variance are forgotten
    Mutant(
        "prune_layer_neurons",
        'for name in ("weight", "bias", "running_mean", "running_var"):\n                cut(module, name, 0, keep)\n',
        'for name in ("weight", "bias"):\n                cut(module, name, 0, keep)\n            module.running_mean, module.running_var = torch.zeros(len(keep)), torch.ones(len(keep))\n',
        ("batch norm begun anew",),
    ),
    # sets the random-pruning control beside the combination, which has other zeros and is quantized
    Mutant(
        "compare_compression_techniques",
        'control_of="prune",',
        'control_of="prune+int8",',
        ("control is another technique",),
    ),
    # lets the teacher teach the control without a teacher, too
    Mutant(
        "compare_compression_techniques",
        'control_of="distill", steps=(small, recover)',
        'control_of="distill", steps=(small, {"technique": "distill"})',
        ("control taught as well",),
    ),
    # adds 15 % to the float size instead of leaving 15 % of the budget
    Mutant(
        "design_pipeline",
        "room = 0.85 * budget_bytes / float_bytes",
        "room = budget_bytes / (1.15 * float_bytes)",
        ("margin on the wrong side",),
    ),
    # charges the place bit only to the weights that are kept (9 bits each), so that the file does not
    # fit
    Mutant(
        "design_pipeline",
        "sparsity = 1 - (32 * room - 1) / 8",
        "sparsity = 1 - 32 * room / 9",
        ("places of kept weights alone",),
    ),
)
