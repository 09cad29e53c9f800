"""Mistakes in ``distill``."""

from planted.mistake import Planted

MISTAKES: tuple[Planted, ...] = (
    Planted(
        "soft targets without T²",
        "distill/losses.py",
        "return temperature**2 * soft",
        "return soft",
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
        "the weights of the decoupled parts are exchanged",
        "distill/decoupled.py",
        "self.alpha * target + self.beta * others",
        "self.beta * target + self.alpha * others",
        "distill/test_equations.py::test_decoupled_parts_add_up_to_the_soft_targets",
    ),
    Planted(
        "attention maps are of sums, not of powers",
        "distill/attention.py",
        "feature.abs().pow(self.power).sum(1)",
        "feature.abs().sum(1)",
        "distill/test_equations.py::test_attention_by_hand",
    ),
    Planted(
        "distances are not divided by their mean",
        "distill/relations.py",
        "return apart / apart.mean().clamp_min(torch.finfo(apart.dtype).tiny)",
        "return apart",
        "distill/test_equations.py::test_relations_by_hand",
    ),
    Planted(
        "padding is taught too",
        "distill/tokens.py",
        "counted = mask.bool()",
        "counted = torch.ones_like(mask).bool()",
        "distill/test_equations.py::test_tokens_by_hand_and_padding_does_not_matter",
    ),
    Planted(
        "the teacher's answers are kept under one name for all layers",
        "distill/cache.py",
        '"layers": list(layers),',
        "",
        "distill/test_teach.py::test_other_weights_data_or_layers_are_other_answers",
    ),
    Planted(
        "classes with a probability each are averaged over the batch twice",
        "distill/independent.py",
        "soft = soft / len(student_logits)",
        "soft = soft / student_logits.numel()",
        "press/test_lessons.py::test_classes_that_do_not_exclude_each_other",
    ),
)
