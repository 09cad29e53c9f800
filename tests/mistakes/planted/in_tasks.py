"""Mistakes in ``tasks``."""

from planted.mistake import Planted

MISTAKES: tuple[Planted, ...] = (
    Planted(
        "a pitch is read off all bins",
        "tasks/crepe.py",
        "weights = sure * near",
        "weights = sure",
        "tasks/test_crepe.py::test_decoding_is_the_weighted_mean_of_nine_bins",
    ),
    Planted(
        "the bins are blurred by the variance of 25",
        "tasks/crepe.py",
        "(2 * BLUR_CENTS**2)",
        "(2 * BLUR_CENTS)",
        "tasks/test_crepe.py::test_the_loss_is_the_cross_entropy_of_blurred_bins",
    ),
    Planted(
        "decibels are taken of amplitudes",
        "tasks/tones.py",
        "10 ** (level / 10)",
        "10 ** (level / 20)",
        "tasks/test_tones.py::test_the_noise_is_as_loud_as_asked",
    ),
    Planted(
        "cents count from another pitch than 10 Hz",
        "tasks/tones.py",
        "hertz = 10 * 2 ** (cents / 1200)",
        "hertz = 10.2 * 2 ** (cents / 1200)",
        "tasks/test_tones.py::test_the_target_is_the_pitch_of_the_sound",
    ),
    Planted(
        "halving pads on the left",
        "tasks/efficientnet.py",
        "(kernel - stride) // 2, (kernel - stride + 1) // 2",
        "(kernel - stride + 1) // 2, (kernel - stride) // 2",
        "tasks/test_efficientnet.py::test_same_padding_is_that_of_tensorflow",
    ),
    Planted(
        "padding counts in the mean of the tokens",
        "tasks/minilm.py",
        "mean = (tokens * weights).sum(1) / weights.sum(1).clamp_min(1e-9)",
        "mean = tokens.mean(1)",
        "tasks/test_minilm.py::test_padding_does_not_count_and_the_length_is_1",
    ),
    Planted(
        "a short rest of a mail becomes a text",
        "tasks/minilm_taught.py",
        "range(0, len(words) - _PIECE // 3, _PIECE)",
        "range(0, len(words), _PIECE)",
        "tasks/test_minilm_taught.py::test_a_mail_is_cut_into_pieces_without_a_short_rest",
    ),
)
