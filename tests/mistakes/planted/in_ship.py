"""Mistakes in ``ship``."""

from planted.mistake import Planted

MISTAKES: tuple[Planted, ...] = (
    Planted(
        "the second of the outputs beside each other reads the pixels of the first",
        "ship/pixel_groups.py",
        "output * layer.stride - layer.pads[1] + place",
        "layer.stride - layer.pads[1] + place",
        "ship/test_layouts.py::test_what_a_layer_of_groups_multiplies",
    ),
    Planted(
        "groups of pixels however large the file becomes",
        "ship/pixel_groups.py",
        "<= growth * total",
        "<= growth * total * 1e9",
        "ship/test_layouts.py::test_a_file_grows_by_a_hundredth_at_most",
    ),
    Planted(
        "a convolution with strides becomes a product of all positions",
        "ship/deep_products.py",
        'set(whole_numbers(given.get("strides"), [1])) == {1}',
        "True",
        "ship/test_layouts.py::test_convolutions_that_stay",
    ),
    Planted(
        "the mean over a part of the positions is taken for that over all",
        "global_pooling.py",
        "sorted(axis % rank for axis in axes.tolist()) == list(range(2, rank))",
        "{axis % rank for axis in axes.tolist()} <= set(range(2, rank))",
        "test_global_pooling.py::test_other_means_stay",
    ),
    Planted(
        "a float layer between integers is left to the runtime",
        "ship/to_onnx.py",
        "return node.input[1] in constants and node.input[1] not in plan.weights",
        "return False",
        "ship/test_to_onnx.py::test_a_layer_that_stays_float_between_integers_is_not_rounded_by_the_runtime",
    ),
    Planted(
        "a Gemm's weight is turned, and the Gemm does not know",
        "ship/from_onnx.py",
        'helper.make_attribute("transB", 1)',
        'helper.make_attribute("transB", 0)',
        "ship/test_from_onnx.py::test_the_file_computes_in_integers_what_the_float_file_does",
    ),
    Planted(
        "signed integers are shipped without their shift",
        "ship/blocks.py",
        "signed=signed).numpy().astype(np.int16) + middle",
        "signed=signed).numpy().astype(np.int16)",
        "ship/test_low_bits.py::test_the_very_integers_of_the_plan_are_in_the_file",
    ),
    Planted(
        "the file forgets that its weights are offset by 128",
        "ship/signs.py",
        "np.array(128, np.uint8)",
        "np.array(0, np.uint8)",
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
        "a layer may be a step off",
        "ship/equal.py",
        "allowed = 0 if exact else",
        "allowed = steps.size if exact else",
        "ship/test_equal_allows.py",
    ),
    Planted(
        "two bits ride in containers of four",
        "ship/blocks.py",
        "_CONTAINERS = (2, 4, 8)",
        "_CONTAINERS = (4, 8)",
        "press/test_lessons.py::test_a_table_gets_its_own_bits_in_both_files",
    ),
    Planted(
        "signed weights are shipped to every processor",
        "ship/signs.py",
        "return not set(DOT_PRODUCTS).isdisjoint(isa)",
        "return True",
        "ship/test_signs.py::test_the_processor_decides_and_is_not_fooled",
    ),
    Planted(
        "a table that is looked up is stored signed, and looked up as unsigned",
        "ship/to_onnx.py",
        "own = signed and weight_of(node) not in tables",
        "own = signed",
        "ship/test_signs.py::test_a_table_that_is_looked_up_keeps_unsigned_bytes",
    ),
    Planted(
        "signed weights that round at run time have a zero of their own",
        "ship/signs.py",
        "return integers.astype(np.int8), np.array(0, np.int8)",
        "return integers.astype(np.int8), np.array(1, np.int8)",
        "ship/test_signs.py::test_layers_that_round_at_run_time_have_both_forms_too",
    ),
)
