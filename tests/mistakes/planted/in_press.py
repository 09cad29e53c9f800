"""Mistakes in ``press``."""

from planted.mistake import Planted

MISTAKES: tuple[Planted, ...] = (
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
        "integers are compared with the floats of another network",
        "press/choose.py",
        "twins = [other for other in fits if other is not candidate and list(other.recipe) == steps]",
        "twins = [other for other in fits if other is not candidate]",
        "press/test_slower_integers.py::test_they_are_compared_with_the_same_network_only",
    ),
    Planted(
        "integers are passed over inside the interval of the floats' time",
        "press/choose.py",
        "one.latency_ms.ratio_to_baseline.high",
        "one.latency_ms.ratio_to_baseline.low",
        "press/test_slower_integers.py::test_they_are_compared_with_the_same_network_only",
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
        "if sha256(data) != file.sha256:",
        "if False:",
        "press/test_verify_seal.py::test_another_file_of_the_same_size_is_told_apart",
    ),
    Planted(
        "the files beside an artifact are not counted",
        "press/shipped.py",
        "total = artifact.bytes + sum(file.bytes for file in files)",
        "total = artifact.bytes",
        "huggingface/test_shipped.py::test_all_three_ship_and_are_counted",
    ),
    Planted(
        "a pattern may be cut apart",
        "press/composition.py",
        "breaks={Promise.INTEGERS: _CUT, Promise.PATTERN: _GROUPS},",
        "breaks={Promise.INTEGERS: _CUT},",
        "press/test_order.py::test_a_forbidden_order_is_refused_with_its_reason_before_any_training",
    ),
    Planted(
        "a training makes batch norm stale",
        "press/composition.py",
        "(stale and not contract.trains)",
        "(stale or contract.trains)",
        "press/test_order.py::test_when_the_moments_are_stale",
    ),
    Planted(
        "zeros that a cut fills again are not noticed",
        "press/ensured.py",
        "return not contract.trains and not bool(torch.isin(now, was).all())",
        "return False",
        "press/test_order.py::test_what_a_step_must_not_do",
    ),
    Planted(
        "what follows a training is not tried before it",
        "press/rehearse.py",
        "last = len(kept) if trained else last",
        "last = 0",
        "press/test_order.py::test_what_fails_on_this_network_fails_before_the_training_that_stands_first",
    ),
    Planted(
        "a pair is recovered after its integers were fixed",
        "press/compositions.py",
        "return (one, recover, two) if Promise.INTEGERS in contract_of(two).ensures else (one, two, recover)",
        "return (one, two, recover)",
        "press/test_compositions_run.py::test_a_pair_is_trained_once_and_before_integers",
    ),
    Planted(
        "an interval that touches zero counts as a difference",
        "press/composed.py",
        "if self.gain.low > 0:",
        "if self.gain.low >= 0:",
        "press/test_compositions_run.py::test_what_the_intervals_say",
    ),
)
