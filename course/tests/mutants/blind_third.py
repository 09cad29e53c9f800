"""Wrong versions written by somebody who had not seen the list of known mistakes: the third set."""

from mutants import Mutant

MUTANTS: tuple[Mutant, ...] = (
    # takes a layer's first parameter for all of them when it counts what is trainable
    Mutant(
        "count_parameters",
        "trainable += sum(parameter.numel() for parameter in own if parameter.requires_grad)",
        "trainable += by_layer[name] if own[0].requires_grad else 0",
        ("layer judged by its first parameter",),
    ),
    # gives a shared parameter to the last layer that holds it instead of the first
    Mutant(
        "count_parameters",
        "for name, module in model.named_modules():",
        "for name, module in reversed(list(model.named_modules())):",
        ("shared ones with the last",),
    ),
    # presses only float32 weights instead of weights of any floating-point type
    Mutant(
        "calculate_model_size",
        "parameter.is_floating_point():",
        "parameter.dtype == torch.float32:",
        ("only float32 packed",),
    ),
    # rounds every row up to whole bytes instead of the tensor as a whole
    Mutant(
        "calculate_model_size",
        "math.ceil(parameter.numel() * bits / 8)",
        "len(parameter) * math.ceil(parameter[0].numel() * bits / 8)",
        ("every row rounded up",),
    ),
    # lets the weights that the network itself holds overwrite the summary of all weights, both named ""
    Mutant(
        "analyze_weight_distribution",
        '{**layers, "": torch.cat(list(layers.values()))}.items()',
        '{"": torch.cat(list(layers.values())), **layers}.items()',
        ("whole overwritten",),
    ),
    # leaves the exact zeros out of the near-zero share, since sparsity tells them already
    Mutant(
        "analyze_weight_distribution",
        "(values.abs() <= near_zero).double()",
        "((values.abs() <= near_zero) & (values != 0)).double()",
        ("zeros not near zero",),
    ),
    # looks at the module and its direct children only instead of at all depths
    Mutant(
        "calculate_sparsity",
        "[m for m in module_or_tensor.modules() if",
        "[m for m in (module_or_tensor, *module_or_tensor.children()) if",
        ("direct children alone",),
    ),
    # takes what is smaller than a tolerance for zero instead of exact zeros
    Mutant(
        "calculate_sparsity",
        "int((tensor == 0).sum())",
        "int((tensor.detach().float().abs() < 1e-6).sum())",
        ("small ones are zeros",),
    ),
    # takes the share of the weights that are not yet zero instead of all weights
    Mutant(
        "prune_weights_by_magnitude",
        "round(sparsity * weight.numel())",
        "int((weight == 0).sum()) + round(sparsity * int((weight != 0).sum()))",
        ("sparsity of what is left",),
    ),
    # tells the sparsity that was asked for instead of the one that was reached
    Mutant(
        "prune_weights_by_magnitude",
        "now=calculate_sparsity(pruned.weight)",
        "now=float(sparsity)",
        ("told what was asked",),
    ),
    # ranks the weights relative to the largest of their layer instead of by magnitude across layers
    Mutant(
        "prune_model_by_magnitude",
        """        row.weight = nn.Parameter(torch.cat(flats).view(1, -1))
        whole = prune_weights_by_magnitude(row, sparsity).model.weight.detach().flatten()
""",
        """        relative = [flat / flat.abs().max().clamp(min=1e-12) for flat in flats]
        row.weight = nn.Parameter(torch.cat(relative).view(1, -1))
        kept = prune_weights_by_magnitude(row, sparsity).model.weight.detach().flatten() != 0
        whole = torch.where(kept, torch.cat(flats), 0.0)
""",
        ("ranked within the layer",),
    ),
    # tells the changes in the alphabetical order of the names instead of the layers' order
    Mutant(
        "prune_model_by_magnitude",
        "for name, layer in layers.items()\n    )",
        "for name, layer in sorted(layers.items())\n    )",
        ("told in the alphabet's order",),
    ),
    # guards the division with the machine epsilon instead of the smallest float, which floors the scale of tiny weights
    Mutant(
        "quantize_layer_weights",
        "torch.finfo(torch.float32).tiny",
        "torch.finfo(torch.float32).eps",
        ("scale with a floor",),
    ),
    # cuts the zero point off to a whole number instead of rounding it
    Mutant(
        "quantize_layer_weights",
        "torch.round(-low / scale.double()).clamp(least, most).to(torch.int32)",
        "(-low / scale.double()).clamp(least, most).to(torch.int32)",
        ("zero point cut off",),
    ),
    # takes the numbers for signed where all zero points are 0 instead of where the scheme is symmetric
    Mutant(
        "dequantize_layer_weights",
        'signed=quantized.scheme == "symmetric"',
        "signed=not quantized.zero_point.any()",
        ("sign by the zero point",),
    ),
    # takes a single scale for all channels silently instead of refusing it where each channel needs one
    Mutant(
        "dequantize_layer_weights",
        "if not quantized.scale.numel() == quantized.zero_point.numel() == channels:",
        "if quantized.scale.numel() not in (1, channels) or quantized.zero_point.numel() not in (1, channels):",
        ("one scale accepted for many channels",),
    ),
    # takes the log of a softmax with 1e-8 added instead of log_softmax, which caps what a sure student pays
    Mutant(
        "DistillationLoss",
        "torch.log_softmax(student_logits / self.temperature, dim=1)",
        "torch.log(torch.softmax(student_logits / self.temperature, dim=1) + 1e-8)",
        ("logarithm after the softmax",),
    ),
    # compares the numbers of classes only, so that a teacher's batch of one is spread over the student's batch
    Mutant(
        "DistillationLoss",
        "if student_logits.shape != teacher_logits.shape:",
        "if student_logits.shape[1] != teacher_logits.shape[1]:",
        ("any shapes accepted",),
    ),
    # takes the teacher's answers in the split's order instead of the shuffled order of the batch
    Mutant(
        "train_with_distillation",
        "loss(student(*part.inputs), taught[some], part.targets)",
        "loss(student(*part.inputs), "
        "taught[batch * schedule.batch_size : (batch + 1) * schedule.batch_size], part.targets)",
        ("teacher's answers of other samples",),
    ),
    # keeps references to the living weights instead of a copy of those of the best epoch
    Mutant(
        "train_with_distillation",
        "best, best_state = value, copy.deepcopy(student.state_dict())",
        "best, best_state = value, dict(student.state_dict())",
        ("last epoch",),
    ),
    # takes the magnitude of the mean activation instead of the mean of the magnitudes
    Mutant(
        "compute_neuron_importance",
        "activations.detach().double().abs().transpose(0, 1).flatten(1).mean(1)",
        "activations.detach().double().transpose(0, 1).flatten(1).mean(1).abs()",
        ("magnitude after averaging activations",),
    ),
    # takes seed 0 for no seed and draws from the global generator
    Mutant(
        "compute_neuron_importance",
        "generator=torch.Generator().manual_seed(seed)",
        "generator=torch.Generator().manual_seed(seed) if seed else None",
        ("lots without a seed",),
    ),
    # rounds the number of neurons that stay instead of the number that go
    Mutant(
        "prune_layer_neurons",
        "gone = min(round(ratio * width), width - 1)",
        "gone = width - max(1, round((1 - ratio) * width))",
        ("those that stay rounded",),
    ),
    # forgets to hand the seed on to the importance
    Mutant(
        "prune_layer_neurons",
        "activations=activations, seed=seed)",
        "activations=activations)",
        ("seed not passed on",),
    ),
    # sets the control's score in the very dictionary that the pruned candidates use, so that they are pruned by lot too
    Mutant(
        "compare_compression_techniques",
        'both = ("onnx", "archive")',
        'both = ("onnx", "archive")\n    by_lot = pruned\n    by_lot["score"] = "random"',
    ),
    # takes the shrunk network, which has its history, as the taught one's control instead of a fresh small network
    Mutant(
        "compare_compression_techniques",
        "steps=(small, recover))",
        'steps=({"technique": "shrink", "ratio": 0.5}, recover))',
        ("control shrunk, not begun anew",),
    ),
    # divides by 1.15 instead of leaving 15 % of the budget
    Mutant(
        "design_pipeline",
        "room = 0.85 * budget_bytes / float_bytes",
        "room = budget_bytes / (1.15 * float_bytes)",
        ("margin on the wrong side",),
    ),
    # teaches once at the end instead of after the shrinking as well
    Mutant(
        "design_pipeline",
        'steps += [{"technique": "shrink", "ratio": ratio}, {"technique": "distill"}]',
        'steps += [{"technique": "shrink", "ratio": ratio}]',
        ("taught once",),
    ),
)
