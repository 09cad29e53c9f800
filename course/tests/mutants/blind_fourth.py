"""Wrong versions written by somebody who had not seen the list of known mistakes: the fourth set."""

from mutants import Mutant

MUTANTS: tuple[Mutant, ...] = (
    # forgets recurse=False: the root owns everything and no layer appears
    Mutant(
        "count_parameters",
        "module.parameters(recurse=False)",
        "module.parameters()",
    ),
    # "that training may change" read as requires_grad: frozen parameters are missing from total and by_layer
    Mutant(
        "count_parameters",
        "if parameter not in seen]",
        "if parameter.requires_grad and parameter not in seen]",
    ),
    # packs only whole values into a byte: 3 bits take as much as 4, and 5 to 7 as much as 8
    Mutant(
        "calculate_model_size",
        "math.ceil(parameter.numel() * bits / 8)",
        "math.ceil(parameter.numel() / (8 // bits))",
        ("a whole byte each",),
    ),
    # takes every buffer for float32: a batch norm's int64 counter counts 4 bytes
    Mutant(
        "calculate_model_size",
        "buffer.numel() * buffer.element_size()",
        "buffer.numel() * 4",
        ("four bytes each",),
    ),
    # the spread of all weights as the average of the layers' spreads, which forgets how far their means are apart
    Mutant(
        "analyze_weight_distribution",
        "    return summaries\n",
        "    each = [summaries[name] for name in layers]\n"
        "    n = sum(s.count for s in each)\n"
        '    summaries[""] = WeightSummary(\n'
        "        count=n,\n"
        "        mean=sum(s.mean * s.count for s in each) / n,\n"
        "        std=sum(s.std * s.count for s in each) / n,\n"
        "        low=min(s.low for s in each),\n"
        "        high=max(s.high for s in each),\n"
        "        near_zero=sum(s.near_zero * s.count for s in each) / n,\n"
        "        sparsity=sum(s.sparsity * s.count for s in each) / n,\n"
        "    )\n"
        "    return summaries\n",
    ),
    # takes only parameters called "weight": those of an LSTM or an attention are missing
    Mutant(
        "analyze_weight_distribution",
        "[p for p in module.parameters(recurse=False) if p.ndim >= 2 and p not in seen]",
        '[p for key, p in module.named_parameters(recurse=False) if key == "weight" and p.ndim >= 2 and p not in seen]',
    ),
    # looks at the direct children only: a single layer has no weights, and nested layers are missed
    Mutant(
        "calculate_sparsity",
        "module_or_tensor.modules()",
        "module_or_tensor.children()",
    ),
    # weights as in step 1, parameters of two or more dimensions: an embedding counts too
    Mutant(
        "calculate_sparsity",
        "[layer.weight for layer in layers]",
        "[p for p in module_or_tensor.parameters() if p.ndim >= 2]",
        ("embeddings counted",),
    ),
    # a threshold from the quantile instead of a count: the largest weight survives sparsity 1, ties and rounding differ
    Mutant(
        "prune_weights_by_magnitude",
        "pruned.weight.view(-1)[smallest_first[: round(sparsity * weight.numel())]] = 0.0",
        "size = weight.detach().abs()\n"
        "        pruned.weight[size < torch.quantile(size.flatten(), float(sparsity))] = 0.0",
        ("quantile as a threshold",),
    ),
    # prunes a share of those weights that are not zero yet: pruning twice goes too far
    Mutant(
        "prune_weights_by_magnitude",
        "        pruned.weight.view(-1)[smallest_first[: round(sparsity * weight.numel())]] = 0.0",
        "        alive = smallest_first[weight.detach().flatten()[smallest_first] != 0]\n"
        "        pruned.weight.view(-1)[alive[: round(sparsity * len(alive))]] = 0.0",
        ("sparsity of what is left",),
    ),
    # forgets the one-dimensional convolutions
    Mutant(
        "prune_model_by_magnitude",
        "isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))",
        "isinstance(m, (nn.Linear, nn.Conv2d))",
        ("no convolutions",),
    ),
    # takes it that nothing was zero before: "was" is always 0
    Mutant(
        "prune_model_by_magnitude",
        "before[name], calculate_sparsity",
        "0.0, calculate_sparsity",
        ("dense before",),
    ),
    # symmetric scale from half of the range instead of the largest magnitude: the longer side is clipped
    Mutant(
        "quantize_layer_weights",
        "torch.maximum(-low, high)",
        "(high - low) / 2",
        ("half the distance of the ends",),
    ),
    # forgets to round the zero point: the conversion to int32 cuts it off
    Mutant(
        "quantize_layer_weights",
        "torch.round(-low / scale.double()).clamp(least, most)",
        "(-low / scale.double()).clamp(least, most)",
        ("zero point cut off",),
    ),
    # subtracts the zero point after the multiplication: q * scale - zero_point
    Mutant(
        "dequantize_layer_weights",
        "    rows = q.view(channels, -1) - quantized.zero_point.view(-1, 1)\n"
        "    return (rows.float() * quantized.scale.view(-1, 1)).view(quantized.shape)\n",
        "    rows = q.view(channels, -1).float() * quantized.scale.view(-1, 1)\n"
        "    return (rows - quantized.zero_point.view(-1, 1)).view(quantized.shape)\n",
        ("zero point after scaling",),
    ),
    # takes the number of channels from the scales themselves, so that scales that do not fit the shape pass
    Mutant(
        "dequantize_layer_weights",
        "channels = 1 if quantized.axis is None else quantized.shape[0]",
        "channels = quantized.scale.numel()",
        ("one scale accepted for many channels",),
    ),
    # softens the student for the labels as well
    Mutant(
        "DistillationLoss",
        "nn.functional.cross_entropy(student_logits, labels)",
        "nn.functional.cross_entropy(student_logits / self.temperature, labels)",
        ("cross entropy at the temperature",),
    ),
    # multiplies both parts by T**2, not the soft one alone
    Mutant(
        "DistillationLoss",
        "self.alpha * self.temperature**2 * soft + (1 - self.alpha) * hard",
        "self.temperature**2 * (self.alpha * soft + (1 - self.alpha) * hard)",
        ("both parts scaled",),
    ),
    # forgets to copy the best weights: the state dict follows the training, and the last epoch comes back
    Mutant(
        "train_with_distillation",
        "best, best_state = value, copy.deepcopy(student.state_dict())",
        "best, best_state = value, student.state_dict()",
        ("last epoch",),
    ),
    # calls what after_step returned after every epoch, not after every step
    Mutant(
        "train_with_distillation",
        "            if keep is not None:\n                keep()\n        student.eval()\n",
        "        if keep is not None:\n            keep()\n        student.eval()\n",
        ("after_step each epoch",),
    ),
    # the magnitude of the mean activation instead of the mean magnitude: signs cancel
    Mutant(
        "compute_neuron_importance",
        "activations.detach().double().abs().transpose(0, 1).flatten(1).mean(1)",
        "activations.detach().double().transpose(0, 1).flatten(1).mean(1).abs()",
        ("magnitude after averaging activations",),
    ),
    # l2 as the root of the mean square, not of the sum
    Mutant(
        "compute_neuron_importance",
        "torch.linalg.vector_norm(w, dim=1)",
        "w.square().mean(1).sqrt()",
        ("l2 averaged",),
    ),
    # rounds the number of neurons that stay, not of those that go: half of five leaves two
    Mutant(
        "prune_layer_neurons",
        "gone = min(round(ratio * width), width - 1)",
        "gone = width - max(1, round((1 - ratio) * width))",
        ("those that stay rounded",),
    ),
    # runs the examples through the result as it is: in training mode that moves the batch norms' averages
    Mutant(
        "prune_layer_neurons",
        "copy.deepcopy(pruned).eval()(",
        "pruned(",
        ("run in training mode",),
    ),
    # forgets to pass the seed on
    Mutant(
        "compare_compression_techniques",
        "engine=engine, seed=seed)",
        "engine=engine)",
        ("seed not passed on",),
    ),
    # the random control has the combination's sparsity, so not as many zeros as the candidate it belongs to
    Mutant(
        "compare_compression_techniques",
        '{**pruned, "score": "random"}',
        '{**pruned, "sparsity": 0.9, "score": "random"}',
        ("control with other zeros",),
    ),
    # forgets the margin where it asks whether the float file fits
    Mutant(
        "design_pipeline",
        "if room >= 1:",
        "if budget_bytes >= float_bytes:",
    ),
    # forgets the bit for every place in the smallest pruned size: sparsity passes 0.9 before a neuron goes
    Mutant(
        "design_pipeline",
        "smallest = (8 * (1 - most) + 1) / 32",
        "smallest = 8 * (1 - most) / 32",
    ),
)
