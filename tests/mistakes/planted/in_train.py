"""Mistakes in ``train``."""

from planted.mistake import Planted

MISTAKES: tuple[Planted, ...] = (
    Planted(
        "pruned zeros are not kept while recovering",
        "train/loop.py",
        "hook.after(step)",
        "pass",
        "train/test_loop.py::test_what_the_hook_keeps_holds_after_every_step",
    ),
    Planted(
        "the last epoch is kept instead of the best",
        "train/loop.py",
        "model.load_state_dict(state.best_state)",
        "pass",
        "train/test_loop.py::test_the_weights_of_the_best_epoch_on_validation_are_kept",
    ),
    Planted(
        "a training that goes on draws other random numbers",
        "train/checkpoint.py",
        'torch.set_rng_state(tensors["random"][moving.processes.rank].clone())',
        "pass",
        "train/test_checkpoint.py::test_at_every_step",
    ),
    Planted(
        "a training that goes on forgets its optimizer",
        "train/checkpoint.py",
        "if kept:",
        "if False:",
        "train/test_checkpoint.py::test_at_every_step",
    ),
    Planted(
        "a training that goes on takes its data in another order",
        "train/checkpoint.py",
        'state.order = tensors["order"]',
        "pass",
        "train/test_checkpoint.py::test_at_every_step",
    ),
    Planted(
        "a training that goes on forgets what its hooks remember",
        "train/checkpoint.py",
        'if not name.startswith("best."):',
        'if name.startswith("model."):',
        "train/test_checkpoint.py::test_at_every_step",
    ),
    Planted(
        "a training that goes on forgets its best weights",
        "train/checkpoint.py",
        'state.best_state[name] = tensors[f"best.{name}"].to(x.device)',
        "pass",
        "train/test_checkpoint.py::test_a_training_killed_again_and_again_ends_in_the_same_bits",
    ),
    Planted(
        "a damaged checkpoint is taken for whole",
        "train/sealed.py",
        'sealed["sha256"] == hash_of(facts, tensors)',
        '"sha256" in sealed',
        "train/test_checkpoint.py::test_a_damaged_checkpoint_is_only_a_copy",
    ),
    Planted(
        "weights of an epoch that is not sparse yet are kept as the best",
        "train/loop.py",
        " and state.epoch * batches >= settled",
        "",
        "prune/test_while_training.py::test_epochs_before_the_end_are_never_the_best_and_patience_waits",
    ),
    Planted(
        "running variances are biased",
        "train/batchnorm.py",
        " * count / (count - 1)",
        "",
        "train/test_batchnorm.py::test_the_moments_are_those_of_all_values_together",
    ),
    Planted(
        "varied copies keep no order with their labels",
        "train/augmented.py",
        "torch.cat([split.targets] * copies)",
        "split.targets.repeat_interleave(copies)",
        "train/test_augmented.py::test_the_samples_come_first_and_each_copy_keeps_its_label_and_group",
    ),
)
