"""Wrong formulas that somebody could have written, each with the tests that must notice it.

``old`` stands exactly once in ``file``; a mistake that no longer fits the code fails the tests by itself.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Planted:
    """One mistake: in ``file`` (relative to the package) ``new`` stands where ``old`` should. ``test`` is a
    node id relative to the folder of tests."""

    name: str
    file: str
    old: str
    new: str
    test: str


PLANTED: tuple[Planted, ...] = (
    # removing weights
    Planted(
        "the largest weights are pruned",
        "prune/zero.py",
        "torch.ops.aten.hardshrink.out(flat, magnitude, out=out)",
        "flat.masked_fill(flat.abs() >= magnitude, 0.0)",
        "prune/test_prune_layer.py::test_survivors_are_those_of_torch",
    ),
    Planted(
        "the count to prune is rounded down",
        "prune/sparsity.py",
        "return round(fraction * total)",
        "return int(fraction * total)",
        "prune/test_prune_layer.py::test_exactly_the_count_is_pruned_and_the_earlier_among_equals",
    ),
    Planted(
        "all weights that equal the threshold are pruned",
        "prune/zero.py",
        "if threshold.ties < threshold.equal:",
        "if False:",
        "prune/test_prune_layer.py::test_the_earlier_of_equal_weights_goes_first",
    ),
    Planted(
        "of equal weights the later are pruned",
        "prune/zero.py",
        "== at.bits)[left:])",
        "== at.bits)[: count - left])",
        "prune/test_prune_layer.py::test_the_earlier_of_equal_weights_goes_first",
    ),
    Planted(
        "pruned zeros are not kept while recovering",
        "train/loop.py",
        "if keep is not None:",
        "if False:",
        "train/test_loop.py::test_what_the_hook_keeps_holds_after_every_step",
    ),
    Planted(
        "the mask of what stays is the mask of what goes",
        "prune/keep.py",
        "(parameter.detach() != 0)",
        "(parameter.detach() == 0)",
        "prune/test_prune_model.py::test_keeping_zeros_survives_nan_and_any_memory_layout",
    ),
    # removing neurons
    Planted(
        "the most important neurons are removed",
        "shrink/importance.py",
        "torch.argsort(importance, stable=True)",
        "torch.argsort(importance, stable=True, descending=True)",
        "shrink/test_shrink_importance.py::test_the_least_important_neurons_go_and_their_bias_with_them",
    ),
    Planted(
        "the l2 importance is the l1 importance",
        "shrink/importance.py",
        'ord=1 if method == "l1" else 2',
        "ord=1",
        "shrink/test_shrink_importance.py::test_weight_formulas",
    ),
    Planted(
        "activations are averaged with their signs",
        "shrink/importance.py",
        "activations.detach().double().abs()",
        "activations.detach().double()",
        "shrink/test_shrink_importance.py::test_activation_is_the_mean_absolute_value_over_batch_and_positions",
    ),
    Planted(
        "the bias of a removed neuron is kept",
        "shrink/rules.py",
        "flow.tie(w_oi[0], bias[0])",
        "pass",
        "shrink/test_shrink_equal.py::test_mlp",
    ),
    Planted(
        "the next layer is not cut",
        "shrink/rules.py",
        "flow.tie(x[-1], w_oi[1])",
        "pass",
        "shrink/test_shrink_equal.py::test_mlp",
    ),
    Planted(
        "after a flatten the wrong columns are cut",
        "shrink/reshaping.py",
        "np.tile(np.repeat(x[free[0]], inner), outer)",
        "np.repeat(np.tile(x[free[0]], inner), outer)",
        "shrink/test_shrink_equal.py::test_flatten_gives_each_channel_its_positions",
    ),
    Planted(
        "the two sides of a residual addition are not tied",
        "shrink/rules.py",
        "flow.tie(known, labels)",
        "pass",
        "shrink/test_shrink_equal.py::test_both_sides_of_an_addition_lose_the_same_channels",
    ),
    Planted(
        "a depthwise convolution pairs the wrong channels",
        "shrink/rules.py",
        "np.repeat(channels[::inputs], outputs), weight[0]",
        "np.tile(channels[::inputs], outputs), weight[0]",
        "shrink/test_shrink_equal.py::test_depthwise_convolution_loses_groups",
    ),
    Planted(
        "the heads of the queries leave without those of the values",
        "shrink/attention.py",
        "    leading = broadcast(flow, k[:-2], v[:-2])\n",
        "    leading = k[:-2]\n",
        "shrink/test_zoo.py::test_a_pruned_network_does_all_that_a_network_does[ViT]",
    ),
    Planted(
        "a hidden unit leaves one gate alone",
        "shrink/recurrent.py",
        "flow.tie(labels, np.tile(units, gates))",
        "flow.tie(labels[: len(units)], units)",
        "shrink/test_zoo.py::test_a_pruned_network_does_all_that_a_network_does[GRU]",
    ),
    Planted(
        "a network that came out wrong is not looked at",
        "shrink/surgery.py",
        "if not off <= _TOLERANCE",
        "if off < 0 * _TOLERANCE",
        "shrink/test_shrink_fences.py::test_what_counts_channels_keeps_them",
    ),
    Planted(
        "the class head is cut",
        "shrink/groups.py",
        'flow.fence(labels, Fence("output"))',
        "pass",
        "shrink/test_shrink_model.py::test_the_class_head_keeps_its_classes",
    ),
    # fewer bits
    Planted(
        "quantizing rounds down",
        "quantize/affine.py",
        "torch.round(real, out=real)",
        "torch.floor(real, out=real)",
        "quantize/test_layer.py::test_halves_go_to_the_even_neighbour",
    ),
    Planted(
        "the zero point is ignored when reading back",
        "quantize/affine.py",
        ".sub_(zero_point).mul_(scale)",
        ".mul_(scale)",
        "quantize/test_layer.py::test_zero_stays_exactly_zero",
    ),
    Planted(
        "an affine range does not hold zero",
        "quantize/affine.py",
        "low = low.to(torch.float64).clamp(max=0.0)",
        "low = low.to(torch.float64)",
        "quantize/test_layer.py::test_an_affine_range_holds_zero",
    ),
    Planted(
        "a scale for each input channel",
        "quantize/layer.py",
        "return 1 if isinstance(layer, _CHANNELS_SECOND) else 0",
        "return 0 if isinstance(layer, _CHANNELS_SECOND) else 1",
        "quantize/test_layer.py::test_each_output_channel_has_a_scale",
    ),
    Planted(
        "an error moves the columns after it the wrong way",
        "quantize/gptq.py",
        "w_CK[:, end:] -= errors @",
        "w_CK[:, end:] += errors @",
        "quantize/test_methods.py::test_gptq_is_the_naive_algorithm",
    ),
    Planted(
        "a pruned weight takes up what its neighbours lost",
        "quantize/gptq.py",
        "aimed = wanted.masked_fill(zero_CK[:, column], 0).float()",
        "aimed = wanted.float()",
        "quantize/test_methods.py::test_gptq_is_the_naive_algorithm",
    ),
    Planted(
        "a channel is divided by its scale once too often",
        "quantize/awq.py",
        "grid.group_size) / s_K",
        "grid.group_size)",
        "quantize/test_methods.py::test_awq_gains_where_few_channels_are_loud",
    ),
    Planted(
        "the worst round is kept",
        "quantize/hqq.py",
        "better = error < best_error",
        "better = error > best_error",
        "quantize/test_methods.py::test_mse_clips_an_outlier_and_hqq_gains",
    ),
    Planted(
        "a power of two is doubled",
        "quantize/affine.py",
        "exponent - (mantissa == 0.5).to(exponent.dtype)",
        "exponent",
        "quantize/test_groups.py::test_powers_of_two",
    ),
    Planted(
        "signed integers are shipped without their shift",
        "ship/blocks.py",
        "signed=signed).numpy().astype(np.int16) + middle",
        "signed=signed).numpy().astype(np.int16)",
        "ship/test_low_bits.py::test_the_very_integers_of_the_plan_are_in_the_file",
    ),
    Planted(
        "rows are cut in the middle of a byte",
        "quantize/checkpoint.py",
        "width // 8) * 8",
        "width // 8) * 1",
        "quantize/test_checkpoint.py::test_the_integers_are_those_of_the_layer_in_memory",
    ),
    Planted(
        "packed integers lose their sign",
        "bits.py",
        "values.bitwise_xor_(sign).view(torch.int8).sub_(sign)",
        "values.view(torch.int8)",
        "test_bits.py::test_across_blocks_and_from_odd_addresses",
    ),
    Planted(
        "four bits take no bytes",
        "measure/weights.py",
        "math.ceil(parameter.numel() * bits / 8)",
        "parameter.numel() * (bits // 8)",
        "measure/test_weights.py::test_four_bits_are_half_a_byte",
    ),
    Planted(
        "four bits take a byte each",
        "measure/weights.py",
        "math.ceil(parameter.numel() * bits / 8)",
        "parameter.numel() * math.ceil(bits / 8)",
        "measure/test_weights.py::test_four_bits_are_half_a_byte",
    ),
    Planted(
        "a calibrated range does not hold zero",
        "quantize/values.py",
        "lows: dict[str, float] = dict.fromkeys(names, 0.0)",
        'lows: dict[str, float] = dict.fromkeys(names, float("inf"))',
        "quantize/test_values.py::test_the_range_is_widened_to_hold_zero",
    ),
    Planted(
        "only the last calibration batch counts",
        "quantize/values.py",
        "min(lows[name], float(fed[name].min()))",
        "float(fed[name].min())",
        "quantize/test_values.py::test_scale_and_zero_point_come_from_all_the_samples",
    ),
    Planted(
        "batch norm is folded without eps",
        "quantize/fold.py",
        "variance.double() + norm.eps",
        "variance.double()",
        "quantize/test_fold.py::test_the_equation_by_hand",
    ),
    Planted(
        "batch norm is folded without gamma",
        "quantize/fold.py",
        "factor = factor * norm.weight.double()",
        "pass",
        "quantize/test_fold.py::test_the_equation_by_hand",
    ),
    Planted(
        "the mean is added when batch norm is folded",
        "quantize/fold.py",
        "bias - mean.double()",
        "bias + mean.double()",
        "quantize/test_fold.py::test_the_equation_by_hand",
    ),
    # the files
    Planted(
        "a bias has the scale of the weight alone",
        "ship/to_onnx.py",
        "np.float32(plan.values[node.input[0]].scale) * scale",
        "scale",
        "ship/test_to_onnx.py::test_a_bias_has_the_product_of_the_scales_of_input_and_weight",
    ),
    Planted(
        "the file forgets that its weights are offset by 128",
        "ship/to_onnx.py",
        "np.full(scale.shape, 128, np.uint8)",
        "np.full(scale.shape, 0, np.uint8)",
        "ship/test_to_onnx.py::test_the_weights_in_the_file_are_those_of_the_plan",
    ),
    Planted(
        "the zero points of activations are not written",
        "ship/to_onnx.py",
        "np.array(value.zero_point, np.uint8)",
        "np.array(0, np.uint8)",
        "ship/test_to_onnx.py::test_values_are_quantized_as_planned_and_the_output_is_not",
    ),
    Planted(
        "the bitmap begins with the highest bit",
        "archive/bitmap.py",
        'np.packbits(mask, bitorder="little")',
        'np.packbits(mask, bitorder="big")',
        "archive/test_archive_codec.py::test_the_first_weight_has_the_lowest_bit",
    ),
    # teaching and training
    Planted(
        "soft targets without T²",
        "distill/losses.py",
        "self.alpha * temperature**2 * soft",
        "self.alpha * soft",
        "distill/test_losses.py::test_the_gradient_of_the_soft_part_does_not_fade_with_the_temperature",
    ),
    Planted(
        "alpha weighs the labels",
        "distill/losses.py",
        "self.alpha * temperature**2 * soft + (1 - self.alpha) * hard",
        "(1 - self.alpha) * temperature**2 * soft + self.alpha * hard",
        "distill/test_losses.py::test_alpha_is_the_weight_of_the_teacher",
    ),
    Planted(
        "the divergence runs from student to teacher",
        "distill/losses.py",
        """functional.log_softmax(student_logits / temperature, dim=1),
            functional.log_softmax(teacher_logits / temperature, dim=1),""",
        """functional.log_softmax(teacher_logits / temperature, dim=1),
            functional.log_softmax(student_logits / temperature, dim=1),""",
        "distill/test_losses.py::test_the_equation",
    ),
    Planted(
        "the divergence is averaged over classes too",
        "distill/losses.py",
        'reduction="batchmean"',
        'reduction="mean"',
        "distill/test_losses.py::test_the_equation",
    ),
    Planted(
        "the last epoch is kept instead of the best",
        "train/loop.py",
        "model.load_state_dict(best_state)",
        "pass",
        "train/test_loop.py::test_the_weights_of_the_best_epoch_on_validation_are_kept",
    ),
    # measuring
    Planted(
        "shared parameters are counted twice",
        "measure/weights.py",
        "once.setdefault(id(parameter), ",
        "once.setdefault((layer, name), ",
        "measure/test_weights.py::test_shared_parameters_count_once",
    ),
    Planted(
        "scales count as parameters",
        "measure/artifact.py",
        "if name in constants or tensor.data_type in _SHAPES:",
        "if tensor.data_type in _SHAPES:",
        "measure/test_artifact.py::test_integers_count_once_and_their_scales_are_no_parameters",
    ),
    Planted(
        "a grouped convolution multiplies all channels",
        "measure/artifact.py",
        "return out * math.prod(weight[1:])",
        "return out * shapes[node.input[0]][1] * math.prod(weight[2:])",
        "measure/test_artifact.py::test_a_grouped_convolution_multiplies_its_own_channels_only",
    ),
    Planted(
        "int8 costs what float costs, and float what int8",
        "measure/energy.py",
        """macs_int8 * (MULTIPLY_INT8 + ADD_INT8)
        + macs_float *""",
        """macs_float * (MULTIPLY_INT8 + ADD_INT8)
        + macs_int8 *""",
        "measure/test_energy.py::test_each_operation_costs_its_published_energy",
    ),
    Planted(
        "the latency ratio is upside down",
        "measure/latency.py",
        "[y / x for x, y in",
        "[x / y for x, y in",
        "measure/test_latency.py::test_it_is_the_candidate_over_the_baseline",
    ),
    Planted(
        "Tango's interval of the swapped models",
        "measure/verdict.py",
        "interval.tango(b, c,",
        "interval.tango(c, b,",
        "measure/test_verdict.py::test_a_worse_candidate_has_a_positive_drop_in_points",
    ),
    Planted(
        "a worse candidate has a negative drop",
        "measure/verdict.py",
        "value = (b - c) / len(targets)",
        "value = (c - b) / len(targets)",
        "measure/test_verdict.py::test_a_worse_candidate_has_a_positive_drop_in_points",
    ),
    Planted(
        "the drop of an error has the wrong sign",
        "measure/verdict.py",
        "if not metric.higher_is_better:",
        "if metric.higher_is_better:",
        "measure/test_verdict.py::test_where_lower_is_better_a_larger_error_is_a_positive_drop",
    ),
    Planted(
        "points are shares",
        "measure/verdict.py",
        "factor = 100.0 if",
        "factor = 1.0 if",
        "measure/test_verdict.py::test_a_worse_candidate_has_a_positive_drop_in_points",
    ),
    Planted(
        "samples are drawn instead of groups",
        "measure/resample.py",
        "    if groups is None:\n        return np.arange(len(targets))",
        "    if True:\n        return np.arange(len(targets))",
        "measure/test_verdict.py::test_groups_widen_the_interval_of_samples_that_agree",
    ),
    Planted(
        "an interval narrower than Tango's is kept",
        "measure/verdict.py",
        "low, high = min(low, below), max(high, above)\n        methods",
        "low, high = below, above\n        methods",
        "measure/test_verdict.py::test_equal_models_are_not_called_certain",
    ),
    Planted(
        "within is read off the lower end",
        "measure/verdict.py",
        "if high <= tolerance:",
        "if low <= tolerance:",
        "measure/test_verdict.py::test_the_verdict_reads_the_right_end",
    ),
    Planted(
        "McNemar's p is one-sided",
        "measure/interval.py",
        "min(1.0, 2 * _lower_tail(",
        "min(1.0, _lower_tail(",
        "measure/test_verdict.py::test_a_worse_candidate_has_a_positive_drop_in_points",
    ),
    Planted(
        "the last samples are not evaluated",
        "measure/quality.py",
        "range(0, len(split), batch_size)",
        "range(0, len(split) - batch_size + 1, batch_size)",
        "measure/test_quality.py::test_evaluate_feeds_every_sample_once_and_in_order",
    ),
    # choosing, checking and telling
    Planted(
        "the choice reads the test split",
        "press/choose.py",
        "candidate.validation.value if higher_is_better else -candidate.validation.value",
        "candidate.quality.value if higher_is_better else -candidate.quality.value",
        "press/test_choose.py::test_what_the_test_split_says_changes_nothing",
    ),
    Planted(
        "a control is chosen",
        "press/choose.py",
        '[c for c in candidates if c.role != "control"]',
        "list(candidates)",
        "press/test_choose.py::test_a_control_is_never_chosen_nor_on_the_front",
    ),
    Planted(
        "the checksum is not compared",
        "press/verify.py",
        "if receipt.computed_checksum() != receipt.checksum:",
        "if False:",
        "press/test_verify_seal.py::test_an_edited_number_breaks_the_seal",
    ),
    Planted(
        "the hash of a file is not compared",
        "press/verify.py",
        "if sha256(data) != candidate.artifact.sha256:",
        "if False:",
        "press/test_verify_seal.py::test_another_file_of_the_same_size_is_told_apart",
    ),
    Planted(
        "a ratio of rounded sizes",
        "report/words.py",
        "ratio(baseline_bytes / bytes_)",
        "ratio(round(baseline_bytes / 1e4) / round(bytes_ / 1e4))",
        "report/test_words.py::test_smaller_and_larger_are_ratios_of_unrounded_bytes",
    ),
)
