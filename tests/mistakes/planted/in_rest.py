"""Mistakes in what else there is."""

from planted.mistake import Planted

MISTAKES: tuple[Planted, ...] = (
    Planted(
        "the bitmap begins with the highest bit",
        "archive/bitmap.py",
        'np.packbits(mask, bitorder="little")',
        'np.packbits(mask, bitorder="big")',
        "archive/test_archive_codec.py::test_the_first_weight_has_the_lowest_bit",
    ),
    Planted(
        "packed integers lose their sign",
        "bits.py",
        "values.bitwise_xor_(sign).view(torch.int8).sub_(sign)",
        "values.view(torch.int8)",
        "test_bits.py::test_across_blocks_and_from_odd_addresses",
    ),
    Planted(
        "only the batch is free",
        "float_onnx.py",
        "{0: batch, 1: length} if free_length",
        "{0: batch} if free_length",
        "ship/test_free_length.py::test_texts_of_any_length_get_the_networks_answer",
    ),
    Planted(
        "weights that the folder lacks stay random",
        "huggingface/load.py",
        "    if missing:\n",
        "    if missing and not missing:\n",
        "huggingface/test_folder.py::test_what_cannot_be_used_is_refused",
    ),
    Planted(
        "learned rounding is tried after a training",
        "plan/diagnose/remedies.py",
        '"learned rounding",\n        "rounding"',
        '"rounding that is learned",\n        "rounding"',
        "plan/diagnose/test_menu.py::test_learned_rounding_costs_more_than_bits_and_less_than_a_training",
    ),
    Planted(
        "a ratio of rounded sizes",
        "report/words.py",
        "ratio(baseline_bytes / bytes_)",
        "ratio(round(baseline_bytes / 1e4) / round(bytes_ / 1e4))",
        "report/test_words.py::test_smaller_and_larger_are_ratios_of_unrounded_bytes",
    ),
    Planted(
        "a search trains pruned zeros away",
        "search/architecture.py",
        "after_step=lambda made: keep_zeros(made, self.pruned_of(made)),",
        "",
        "press/test_search_step.py::test_pruned_zeros_stay_zero_through_all_trainings_of_a_search",
    ),
)
