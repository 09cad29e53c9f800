"""Truncated, foreign and hostile files: an ArtifactError that names the field, never a crash, never much memory."""

import json
import os
import stat
import struct
import tracemalloc

import archive_networks as networks
import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch
from archive_files import make_file, put, refused, stock
from torch import nn

from tinypress.archive import archive_layers, read_archive, write_archive
from tinypress.archive.plan import Plan
from tinypress.errors import ArtifactError
from tinypress.facts import Compressed


def test_it_is_a_plain_safetensors_file_with_one_key(small, good):
    with safetensors.safe_open(small, "pt") as file:
        assert list(file.metadata()) == ["tinypress"]
        assert file.keys() == ["data"]
        assert file.get_tensor("data").dtype == torch.uint8
    small_again = small.with_name("again")
    small_again.write_bytes(make_file(*good))
    read_archive(small_again, stock())


def test_bytes_at_the_end_are_refused(small, tmp_path):
    path = tmp_path / "longer"
    path.write_bytes(small.read_bytes() + b"\0")
    refused(path, "data.shape")


# [module, kind, attributes, [[name, shape, dtype, kept, bits, axis, zero_point, group, balanced,
# half], ...]]
def _edit(*steps):
    """A change of the plan: each step is (path, value)."""

    def change(plan):
        for path, value in steps:
            put(plan, path, value)

    return change


_WEIGHT = ("layers", 0, 3, 0)
_HOSTILE = {
    "another format": (_edit((("format",), 2)), "format is 2, this version reads 1"),
    "format is a list": (_edit((("format",), [1])), "format is [1]"),
    "no format": (lambda plan: plan.pop("format"), "no field format"),
    "unknown field": (_edit((("exec",), "rm")), "exec: Extra inputs"),
    "layers missing": (lambda plan: plan.pop("layers"), "layers: Field required"),
    "huge shape": (_edit(((*_WEIGHT, 1), [2**40, 20])), "layers.0.tensors.0.shape.0"),
    "many dimensions": (_edit(((*_WEIGHT, 1), [1] * 99)), "layers.0.tensors.0.shape"),
    "huge claim": (_edit(((*_WEIGHT, 1), [2**30, 2**30, 2**30])), "the plan needs"),
    "negative size": (_edit(((*_WEIGHT, 1), [-4, -20])), "layers.0.tensors.0.shape.0"),
    "size is true": (_edit(((*_WEIGHT, 1), [True, 80])), "layers.0.tensors.0.shape.0"),
    "size is a fraction": (_edit(((*_WEIGHT, 1), [4.0, 20])), "layers.0.tensors.0.shape.0"),
    "1 bit": (_edit(((*_WEIGHT, 4), 1)), "layers.0.tensors.0.bits"),
    "9 bits": (_edit(((*_WEIGHT, 4), 9)), "layers.0.tensors.0.bits"),
    "unknown dtype": (_edit(((*_WEIGHT, 2), 10)), "layers.0.tensors.0.dtype"),
    "sparse integers": (_edit(((*_WEIGHT, 2), 1)), "dtype I64 can only be stored dense"),
    "more kept than there are": (_edit(((*_WEIGHT, 3), 81)), "layers.0.tensors.0: Value error, kept is 81"),
    "axis beyond": (_edit(((*_WEIGHT, 5), 2)), "layers.0.tensors.0: Value error, axis is 2"),
    "unknown zero point": (_edit(((*_WEIGHT, 6), "eval")), "layers.0.tensors.0.zero_point"),
    "group of none": (_edit(((*_WEIGHT, 7), 0)), "layers.0.tensors.0.group"),
    "group is true": (_edit(((*_WEIGHT, 7), True)), "layers.0.tensors.0.group"),
    "huge group": (_edit(((*_WEIGHT, 7), 2**40)), "layers.0.tensors.0.group"),
    "group without axis": (_edit(((*_WEIGHT, 5), None), ((*_WEIGHT, 7), 4)), "group needs an axis"),
    "groups that are not there": (_edit(((*_WEIGHT, 7), 1)), "the plan needs"),
    "balanced is a word": (_edit(((*_WEIGHT, 8), "yes")), "layers.0.tensors.0.balanced"),
    "balanced bias": (_edit((("layers", 0, 3, 1, 8), True)), "balanced needs bits and two dimensions"),
    "balance that is not there": (_edit(((*_WEIGHT, 8), True)), "the plan needs"),
    "halves of integers": (_edit(((*_WEIGHT, 9), "float16")), "half needs a float dtype and no bits"),
    "halves unknown": (_edit(((*_WEIGHT, 9), "float8")), "layers.0.tensors.0.half"),
    "halves that are not there": (_edit((("layers", 0, 3, 1, 9), "float16")), "the plan needs"),
    "a row too long": (lambda plan: plan["layers"][0][3][0].append(1), "layers.0.tensors.0"),
    "dotted name": (_edit(((*_WEIGHT, 0), "a.b")), "layers.0.tensors.0.name"),
    "unprintable name": (_edit((("layers", 0, 0), "\x1b[2J")), "layers.0.module"),
    "long name": (_edit((("layers", 0, 0), "x" * 9999)), "layers.0.module"),
    "name twice": (_edit((("layers", 1, 3, 1, 0), "weight")), "'2.weight' comes twice"),
    "module twice": (_edit((("layers", 1, 0), "0"), (("layers", 1, 3), [])), "layers.module '0' comes twice"),
    "module of another": (_edit((("layers", 0, 0), "9")), "no module of that name"),
    "class of another": (_edit((("layers", 0, 1), "os.system")), "not a os.system"),
    "attributes of another": (_edit((("layers", 0, 2), {"in_features": 21})), "its attributes"),
    "attribute that is code": (_edit((("layers", 0, 2), {"forward": "x"})), "layers.0.attributes.forward"),
    "alias to nowhere": (_edit((("aliases",), [["x", 4]])), "aliases.0.target is 4, there are 4 tensors"),
    "alias of another": (_edit((("aliases",), [["9.weight", 0]])), "'9.weight' is not in the stock network"),
    "alias comes twice": (_edit((("aliases",), [["0.weight", 0]])), "'0.weight' comes twice"),
    "pruned beyond": (_edit((("pruned",), [0, 77])), "pruned has the number 77"),
    "pruned twice": (_edit((("pruned",), [0, 0])), "pruned is not in rising order"),
    "quantized beyond": (_edit((("quantized",), [0, 99])), "quantized has the number 99"),
    "quantized a bias": (_edit((("quantized",), [0, 1])), "quantized does not name the tensors with bits"),
    "values missing": (lambda plan: plan.pop("values"), "values is missing although there are bits"),
    "value scale 0": (_edit((("values",), [["x", 0.0, 0]])), "values.0.scale"),
    "value zero point": (_edit((("values",), [["x", 0.5, 256]])), "zero_point is 256 in 8 bits"),
    "value twice": (_edit((("values",), [["x", 0.5, 0]] * 2)), "values.name 'x' comes twice"),
    "checksum": (_edit((("crc32",), -1)), "crc32"),
}


@pytest.mark.parametrize("case", _HOSTILE)
def test_a_hostile_plan_is_refused_by_the_name_of_its_field(small, good, tmp_path, case):
    change, said = _HOSTILE[case]
    plan, data = json.loads(json.dumps(good[0])), good[1]
    # the rows of the weight in full, so that every one of its fields can be changed
    plan["layers"] = [_in_full(layer) for layer in plan["layers"]]
    change(plan)
    path = tmp_path / "hostile"
    path.write_bytes(make_file(plan, data, sign=case != "checksum"))
    refused(path, said)


def _in_full(layer):
    defaults = [0, None, None, None, "none", None, False, None]
    return [*layer[:3], [row + defaults[len(row) - 2 :] for row in layer[3]]]


_TEXTS = {
    "deep": (lambda _: "[" * 200_000 + "]" * 200_000, "nested too deep"),
    "a key twice": (lambda text: '{"format":1,' + text[1:], "a key comes twice"),
    "NaN": (lambda text: text.replace('"format": 1', '"format": NaN'), "NaN is not a number"),
    "infinite": (
        lambda _: '{"format":1,"crc32":0,"layers":[],"values":[["x",1e999,0]]}',
        "values.0.scale",
    ),
    "many digits": (lambda _: '{"format":' + "9" * 5000 + "}", "the plan is not valid JSON"),
    "a list": (lambda _: "[]", "no field format"),
    "not JSON": (lambda _: "import os", "the plan is not valid JSON"),
    "surrogate": (lambda _: '{"format":1,"crc32":0,"layers":[],"name":"\\ud800"}', "name"),
}


@pytest.mark.parametrize("case", _TEXTS)
def test_a_plan_that_is_no_plan_is_refused(good, tmp_path, case):
    change, said = _TEXTS[case]
    path = tmp_path / "text"
    path.write_bytes(make_file(change(json.dumps(good[0])), good[1]))
    refused(path, said)


def _header(header, data=b""):
    return struct.pack("<Q", len(header)) + header + data


_HEADERS = {
    "empty": (b"", "the header is cut off"),
    "huge claim": (struct.pack("<Q", 2**63) + b"{}", "the header is cut off"),
    "too long": (_header(b" " * (1 << 23)), "the header has 8388608 bytes"),
    "zip": (b"PK\x03\x04" + bytes(60), "the header is cut off"),
    "deep": (_header(b'{"a":' * 100_000), "the header is nested too deep"),
    "not UTF-8": (_header(b"\xff\xfe\xfd"), "the header is not valid JSON"),
    "another safetensors": (
        safetensors.numpy.save({"weight": np.zeros(3)}),
        "does not name __metadata__ and data alone",
    ),
    "two tensors": (
        safetensors.numpy.save(
            {"data": np.zeros(3, np.uint8), "more": np.zeros(1)}, metadata={"tinypress": "{}"}
        ),
        "does not name __metadata__ and data alone",
    ),
    "another key": (
        safetensors.numpy.save({"data": np.zeros(3, np.uint8)}, metadata={"tinypress": "{}", "format": "pt"}),
        "__metadata__ does not hold tinypress alone",
    ),
    "another dtype": (
        safetensors.numpy.save({"data": np.zeros(3, np.float32)}, metadata={"tinypress": "{}"}),
        "data.dtype is F32",
    ),
    "offsets beyond": (
        _header(
            b'{"__metadata__":{"tinypress":"{}"},"data":{"dtype":"U8","shape":[4],"data_offsets":[0,999]}}',
            b"1234",
        ),
        "data.data_offsets is [0, 999], the file has [0, 4]",
    ),
    "data twice": (
        _header(b'{"__metadata__":{"tinypress":"{}"},"data":{},"data":{}}'),
        "the header is not valid JSON (a key comes twice)",
    ),
    "plan is a number": (_header(b'{"__metadata__":{"tinypress":3},"data":{}}'), "__metadata__"),
    "metadata is a list": (_header(b'{"__metadata__":["tinypress"],"data":{}}'), "__metadata__"),
}


@pytest.mark.parametrize("case", _HEADERS)
def test_a_file_that_is_no_archive_is_refused(tmp_path, case):
    file, said = _HEADERS[case]
    path = tmp_path / "foreign"
    path.write_bytes(file)
    refused(path, said)
    with pytest.raises(ArtifactError):
        archive_layers(path)


def _rewritten(good, tensor, part, change):
    """The data with ``change`` made to one part (scale, zero point, input scale, bitmap, values) of a tensor."""
    plan, data = good
    start = 0
    for number, (_, row) in enumerate(Plan.model_validate(plan).tensors()):
        sizes = row.parts_bytes
        if number == tensor:
            start += sum(sizes[:part])
            piece = bytearray(data[start : start + sizes[part]])
            change(piece)
            return json.loads(json.dumps(plan)), data[:start] + bytes(piece) + data[start + len(piece) :]
        start += sum(sizes)
    raise AssertionError


def _set(place, value):
    def change(piece):
        piece[place : place + len(value)] = value

    return change


def _flip(place, bits):
    def change(piece):
        piece[place] ^= bits

    return change


_DATA = {
    # tensors: 0.weight (sparse, 4 bits, affine), 0.bias, 2.weight (12 weights, 4 bits), 2.bias
    "scale NaN": (0, 0, _set(0, struct.pack("<f", float("nan"))), "'0.weight': its scale is not finite"),
    "scale infinite": (0, 0, _set(4, struct.pack("<f", float("inf"))), "'0.weight': its scale is not finite"),
    "scale below 0": (
        0,
        0,
        _set(8, struct.pack("<f", -1.0)),
        "'0.weight': its scale is not finite and above",
    ),
    "zero point": (0, 1, _set(0, b"\x10"), "'0.weight': its zero_point does not fit 4 bits"),
    "bitmap": (0, 3, _flip(3, 1), "bits set, kept is 16"),
    "bias NaN": (1, 4, _set(0, struct.pack("<f", float("nan"))), "'0.bias': it holds NaN"),
    "bias infinite": (3, 4, _set(0, struct.pack("<f", float("inf"))), "'2.bias': it holds infinity"),
}


@pytest.mark.parametrize("case", _DATA)
def test_hostile_data_is_refused_by_the_name_of_its_tensor(good, tmp_path, case):
    tensor, part, change, said = _DATA[case]
    path = tmp_path / "data"
    path.write_bytes(make_file(*_rewritten(good, tensor, part, change)))
    refused(path, said)


def test_a_kept_value_that_is_zero_is_refused(good, tmp_path):
    first_zero_point = good[1][16]  # after four scales
    plan, data = _rewritten(good, 0, 4, _set(0, bytes([first_zero_point * 0x11])))
    path = tmp_path / "zero"
    path.write_bytes(make_file(plan, data))
    refused(path, "'0.weight': its bitmap has a bit where the value is zero")


def test_padding_bits_and_the_lowest_integer_are_refused(tmp_path):
    weight = torch.zeros(3, 7)
    weight[0, :3] = torch.tensor([1.0, -1.0, 1.0])
    layer = nn.Linear(7, 3, bias=False)
    layer.weight.data = weight
    write_archive(tmp_path / "a", networks.quantized(Compressed(layer), 3, per_channel=False))
    file = (tmp_path / "a").read_bytes()
    assert read_archive(tmp_path / "a", nn.Linear(7, 3, bias=False)).model.weight.equal(weight)
    length = struct.unpack("<Q", file[:8])[0]
    plan = json.loads(json.loads(file[8 : 8 + length])["__metadata__"]["tinypress"])
    data = file[8 + length :]  # scale 4, bitmap 3 (21 bits), values 2 (9 bits)
    assert len(data) == 9
    for place, bits, said in (
        (6, 0x80, "padding bit"),
        (8, 0x80, "bits after the last integer"),
        (7, 0x07, "the integer -4"),
    ):
        changed = bytearray(data)
        changed[place] ^= bits
        (tmp_path / "b").write_bytes(make_file(plan, bytes(changed)))
        with pytest.raises(ArtifactError, match=said):
            read_archive(tmp_path / "b", nn.Linear(7, 3, bias=False))


def test_data_that_no_tensor_claims_is_refused(good, tmp_path):
    path = tmp_path / "more"
    path.write_bytes(make_file(json.loads(json.dumps(good[0])), good[1] + b"hidden"))
    refused(path, f"data has {len(good[1]) + 6} bytes, the plan needs {len(good[1])}")


@pytest.mark.timeout(60)  # a pipe that is opened would never end
def test_paths_that_are_no_files_are_refused(tmp_path):
    refused(tmp_path / "nowhere", "No such file")
    (tmp_path / "folder").mkdir()
    refused(tmp_path / "folder", "not a file")
    os.mkfifo(tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    refused(tmp_path / "pipe", "not a file")


def test_a_small_file_cannot_claim_much_memory(tmp_path):
    # 1.6 MB of empty bitmap stands for 12.8 million weights, which the stock network does not have
    count = 12_800_000
    data = bytes(count // 8)
    plan = {"format": 1, "crc32": 0, "layers": [["0", "Linear", {}, [["weight", [count], 0, 0]]]]}
    path = tmp_path / "bomb"
    path.write_bytes(make_file(plan, data))
    tracemalloc.start()
    try:
        refused(path, "layers.tensors.shape: 12800000 elements, more than 396")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000
