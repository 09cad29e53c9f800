"""Mistakes in ``graph``."""

from planted.mistake import Planted

MISTAKES: tuple[Planted, ...] = (
    Planted(
        "a size that follows the batch is taken as fixed",
        "graph/two_runs.py",
        "return FreeSize.of(one // batches[0] * batch, one // batches[0])",
        "return one",
        "graph/test_graph_record.py::test_sizes_that_follow_the_batch_are_told_from_those_that_do_not",
    ),
    Planted(
        "a parameter that the forward pass writes is shared all the same",
        "graph/recorder.py",
        "self.writes |= x.untyped_storage()._cdata in self._own",
        "self.writes |= isinstance(x, nn.Parameter)",
        "graph/test_graph_record.py::test_a_parameter_that_the_forward_pass_writes_stays_as_it_is",
    ),
    Planted(
        "a network is recorded at twice as many samples, where half of them, but one, is one in both",
        "graph/two_runs.py",
        "return batch + 251",
        "return batch * 2",
        "graph/test_graph_record.py::test_what_two_runs_without_values_cannot_tell_is_not_recorded",
    ),
    Planted(
        "a layer that failed counts as running for ever",
        "graph/record.py",
        "        finally:\n            running.pop()",
        "        except ZeroDivisionError:\n            running.pop()",
        "graph/test_recorded_run.py::test_operations_are_where_they_run",
    ),
    Planted(
        "networks that call the same operations on other numbers are taken as the same",
        "graph/recorder.py",
        "(node.name, node.kind, node.tensor, node.shape, node.part_shapes, node.args, node.kwargs)",
        "(node.name, node.kind, node.tensor, node.shape, node.part_shapes, before.args, node.kwargs)",
        "graph/test_recorded_run.py::test_another_operation_or_number_is_noticed_before_what_follows_runs",
    ),
)
