"""Mistakes in ``prune``."""

from planted.mistake import Planted

MISTAKES: tuple[Planted, ...] = (
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
        "the mask of what stays is the mask of what goes",
        "prune/keep.py",
        "(parameter.detach() != 0)",
        "(parameter.detach() == 0)",
        "prune/test_prune_model.py::test_keeping_zeros_survives_nan_and_any_memory_layout",
    ),
    Planted(
        "the largest of every M go",
        "prune/pattern.py",
        "indices[:, :count]",
        "indices[:, -count:]",
        "prune/test_pattern.py::test_n_of_m_is_that_of_brute_force",
    ),
    Planted(
        "kernel sizes do not count in ERK",
        "prune/allocation.py",
        "float(sum(shape))",
        "float(sum(shape[:2]))",
        "prune/test_pattern.py::test_erk_has_the_densities_of_the_equation",
    ),
    Planted(
        "LAMP sums the smaller weights",
        "prune/allocation.py",
        "ordered.flip(0).cumsum(0).flip(0)",
        "ordered.cumsum(0)",
        "prune/test_pattern.py::test_lamp_is_that_of_the_equation",
    ),
    Planted(
        "Wanda does not look at the inputs",
        "prune/wanda.py",
        "live.detach().cpu().abs().double() * norms",
        "live.detach().cpu().abs().double()",
        "prune/test_while_training.py::test_wanda_by_hand_layer_after_layer",
    ),
    Planted(
        "gradual sparsity grows in a line",
        "prune/gradual.py",
        "(1 - share) ** 3",
        "(1 - share)",
        "prune/test_while_training.py::test_the_cubic_schedule",
    ),
    Planted(
        "masked weights take steps in movement pruning",
        "prune/movement.py",
        "torch.where(masks[name], parameter, dense[name])",
        "parameter",
        "prune/test_while_training.py::test_movement_is_that_of_the_equations",
    ),
    Planted(
        "a ticket goes on with its trained weights",
        "prune/rounds.py",
        "ticket = copy.deepcopy(early)",
        "ticket = copy.deepcopy(pruned.model)",
        "prune/test_while_training.py::test_a_ticket_is_trained_from_its_early_weights",
    ),
)
