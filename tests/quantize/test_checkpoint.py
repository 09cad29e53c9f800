"""Checkpoints on disk: the same integers as in memory, little memory, whole files or none, hostile files refused."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

import tinypress.archive.tensors_file as tensors_file
import tinypress.quantize.checkpoint as checkpoint_module
from quantize.test_layer import layer_with
from tinypress.errors import ArtifactError, InputError, ModelError, RunError
from tinypress.quantize import (
    dequantize_layer_weights,
    quantize_checkpoint,
    quantize_layer_weights,
    read_quantized_checkpoint,
    read_quantized_weights,
)

INDEX = "model.safetensors.index.json"


def tensors(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return {
        "a.weight": torch.randn(21, 70),
        "a.bias": torch.randn(21),
        "b.weight": torch.randn(9, 4, 3, 3, dtype=torch.float16),
        "c.weight": torch.randn(8, 64, dtype=torch.bfloat16),
        "d.weight": torch.randn(3, 5, dtype=torch.float64),
        "steps": torch.arange(6).view(2, 3),
        "flags": torch.tensor([[True, False]]),
        "none": torch.empty(0, 4),
    }


def file(folder: Path, name: str = "in.safetensors", seed: int = 0) -> Path:
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(tensors(seed), folder / name)
    return folder / name


def sharded(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    weight_map = {}
    for number, names in enumerate(
        (["a.weight", "steps"], ["a.bias", "b.weight", "none"], ["c.weight", "d.weight"])
    ):
        name = f"model-{number + 1}-of-3.safetensors"
        safetensors.torch.save_file({key: tensors()[key] for key in names}, folder / name)
        weight_map |= dict.fromkeys(names, name)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
@pytest.mark.parametrize("group", [None, 32])
@pytest.mark.parametrize("step", [1, 1 << 21])
def test_the_integers_are_those_of_the_layer_in_memory(tmp_path, monkeypatch, bits, scheme, group, step):
    monkeypatch.setattr(checkpoint_module, "_STEP", step)
    done = quantize_checkpoint(
        file(tmp_path),
        tmp_path / "out.safetensors",
        bits=bits,
        scheme=scheme,
        group_size=group,
        keep=("d.*",),
    )
    assert done.files == (tmp_path / "out.safetensors",)
    assert {change.layer for change in done.changes} == {"a.weight", "b.weight", "c.weight"}
    assert [note.layer for note in done.notes] == ["d.weight"]
    weights = dict(read_quantized_weights(done.files[0]))
    assert set(weights) == {"a.weight", "b.weight", "c.weight"}
    for name, weight in weights.items():
        expected = quantize_layer_weights(layer_with(tensors()[name]), bits, scheme=scheme, group_size=group)
        for field in ("packed", "scale", "zero_point"):
            assert torch.equal(getattr(weight, field), getattr(expected, field))
        assert weight.shape == expected.shape
    found = dict(read_quantized_checkpoint(done.files[0]))
    assert found.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
        wanted = dequantize_layer_weights(weights[name]).to(tensor.dtype) if name in weights else tensor
        assert torch.equal(found[name], wanted)


def test_it_is_a_plain_safetensors_file_and_always_the_same(tmp_path):
    source = file(tmp_path)
    for name in ("one", "two"):
        quantize_checkpoint(source, tmp_path / name, scheme="affine")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    plain = safetensors.torch.load_file(tmp_path / "one")
    assert plain["a.weight.packed"].shape == (21 * 35,)
    assert plain["a.weight.scale"].shape == plain["a.weight.zero_point"].shape == (21, 3)
    assert torch.equal(plain["steps"], tensors()["steps"])
    with safetensors.safe_open(tmp_path / "one", "pt") as opened:
        assert list(opened.metadata()) == ["tinypress_quantized"]
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("method", ["mse", "hqq"])
def test_better_ranges(tmp_path, method):
    source = file(tmp_path)
    errors = {}
    for name in ("nearest", method):
        quantize_checkpoint(source, tmp_path / name, bits=3, method=name, group_size=None)
        found = dict(read_quantized_checkpoint(tmp_path / name))
        errors[name] = float(
            (found["a.weight"] - tensors()["a.weight"]).abs().pow(0.7 if method == "hqq" else 2).sum()
        )
    assert errors[method] < errors["nearest"]


def test_shards_and_their_index(tmp_path):
    seen: list[tuple[str, int, int]] = []
    done = quantize_checkpoint(
        sharded(tmp_path / "in"), tmp_path / "out", progress=lambda *told: seen.append(told)
    )
    assert [path.name for path in done.files] == [*(f"model-{n}-of-3.safetensors" for n in (1, 2, 3)), INDEX]
    assert not list((tmp_path / "out").glob(".*"))
    assert len(seen) == 7
    assert seen[-1][1] == seen[-1][2] > 0
    assert [told[1] for told in seen] == sorted(told[1] for told in seen)
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index["weight_map"]["a.weight.packed"] == "model-1-of-3.safetensors"
    sizes = [
        tensor.nbytes for path in done.files[:-1] for tensor in safetensors.torch.load_file(path).values()
    ]
    assert index["metadata"]["total_size"] == sum(sizes)
    found = dict(read_quantized_checkpoint(tmp_path / "out"))
    assert found.keys() == tensors().keys() - {"flags"}
    quantize_checkpoint(file(tmp_path / "flat"), tmp_path / "one.safetensors")
    for name, tensor in read_quantized_checkpoint(tmp_path / "one.safetensors"):
        assert name == "flags" or torch.equal(found[name], tensor)


def test_a_folder_with_one_file(tmp_path):
    file(tmp_path / "in", "model.safetensors")
    done = quantize_checkpoint(tmp_path / "in", tmp_path / "out")
    assert done.files == (tmp_path / "out" / "model.safetensors",)


def test_a_killed_run_goes_on_with_the_shard_that_was_not_finished(tmp_path):
    source = sharded(tmp_path / "in")

    def stop(name: str, done: int, total: int) -> None:
        if name == "b.weight":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_checkpoint(source, tmp_path / "out", progress=stop)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [".quantize_checkpoint.json", "model-1-of-3.safetensors"]
    first = (tmp_path / "out" / "model-1-of-3.safetensors").stat().st_mtime_ns
    quantize_checkpoint(source, tmp_path / "out")
    assert (tmp_path / "out" / "model-1-of-3.safetensors").stat().st_mtime_ns == first
    quantize_checkpoint(source, tmp_path / "whole")
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


@pytest.mark.parametrize("change", ["settings", "source"])
def test_a_killed_run_starts_over_where_something_changed(tmp_path, change):
    source = sharded(tmp_path / "in")

    def stop(name: str, done: int, total: int) -> None:
        if name == "b.weight":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize_checkpoint(source, tmp_path / "out", progress=stop)
    first = source / "model-1-of-3.safetensors"
    if change == "source":
        safetensors.torch.save_file({"a.weight": torch.ones(21, 70), "steps": tensors()["steps"]}, first)
        os.utime(first, ns=(1, 1))
    quantize_checkpoint(source, tmp_path / "out", bits=8 if change == "settings" else 4)
    found = dict(read_quantized_weights(tmp_path / "out"))
    assert {weight.bits for weight in found.values()} == {8 if change == "settings" else 4}
    if change == "source":
        assert float(dequantize_layer_weights(found["a.weight"]).mean()) == pytest.approx(1.0)


def test_a_run_that_is_killed_for_good_leaves_nothing_under_the_name(tmp_path):
    source = file(tmp_path)
    code = (
        "import os, sys, pathlib; from tinypress.quantize import quantize_checkpoint;"
        "quantize_checkpoint(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]),"
        " progress=lambda *told: os.kill(os.getpid(), 9))"
    )
    target = tmp_path / "out.safetensors"
    assert subprocess.run([sys.executable, "-c", code, source, target]).returncode == -9
    assert not target.exists()
    quantize_checkpoint(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.safetensors", "out.safetensors"]
    assert len(dict(read_quantized_weights(target))) == 4


@pytest.mark.parametrize("where", ["reserve", "write"])
def test_a_full_disk(tmp_path, monkeypatch, where):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "reserve":
        monkeypatch.setattr(tensors_file.os, "posix_fallocate", full)
    else:
        monkeypatch.setattr(tensors_file.Sink, "write", full)
    with pytest.raises(RunError, match=r"out.*No space left.*Free some space"):
        quantize_checkpoint(file(tmp_path), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in.safetensors"]


def test_two_runs_at_once(tmp_path):
    source = file(tmp_path)

    def again(name: str, done: int, total: int) -> None:
        with pytest.raises(RunError, match="another run is writing"):
            quantize_checkpoint(source, tmp_path / "out")

    quantize_checkpoint(source, tmp_path / "out", progress=again)
    assert len(dict(read_quantized_weights(tmp_path / "out"))) == 4


def _file(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _one(**fields: object) -> dict[str, object]:
    return {"w": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16], **fields}}


HOSTILE = {
    "empty": (b"", "header is cut off"),
    "cut": (_file(_one(), b"\0" * 16)[:-1], "its header tells of"),
    "longer": (_file(_one(), b"\0" * 17), "its header tells of"),
    "huge header": (struct.pack("<Q", 2**62) + b"{}", "header is cut off"),
    "not JSON": (_file(b"import os"), "not valid JSON"),
    "deep": (_file(b"[" * 100_000), "not valid JSON"),
    "a list": (_file([]), "not a JSON object"),
    "key twice": (_file(b'{"a":1,"a":2}'), "a key comes twice"),
    "dtype": (_file(_one(dtype="F99"), b"\0" * 16), "dtype 'F99' is unknown"),
    "shape": (_file(_one(shape=[2, 3]), b"\0" * 16), "16 bytes do not hold F32"),
    "negative": (_file(_one(shape=[-2, -2]), b"\0" * 16), "shape is not a list of sizes"),
    "true": (_file(_one(shape=[True, 4]), b"\0" * 16), "shape is not a list of sizes"),
    "huge": (_file(_one(shape=[2**40, 2**40]), b"\0" * 16), "16 bytes do not hold F32"),
    "backwards": (_file(_one(data_offsets=[16, 0]), b"\0" * 16), "not a beginning and an end"),
    "gap": (_file(_one(data_offsets=[4, 20]), b"\0" * 20), "overlaps another tensor or leaves a gap"),
    "further field": (_file(_one(exec="rm"), b"\0" * 16), "shape and data_offsets alone"),
    "metadata": (_file({"__metadata__": {"a": 1}, **_one()}, b"\0" * 16), "does not hold words"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_sources_are_refused_before_any_work(tmp_path, case):
    content, said = HOSTILE[case]
    (tmp_path / "in.safetensors").write_bytes(content)
    with pytest.raises(ArtifactError, match=said):
        quantize_checkpoint(tmp_path / "in.safetensors", tmp_path / "out")
    with pytest.raises(ArtifactError, match=said):
        list(read_quantized_checkpoint(tmp_path / "in.safetensors"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda index: index["weight_map"].update({"a.weight": "../../etc/passwd"}),
            "not a .safetensors file beside",
        ),
        (lambda index: index["weight_map"].update({"a.weight": 3}), "not a .safetensors file beside"),
        (
            lambda index: index["weight_map"].update({"z": "model-1-of-3.safetensors"}),
            "'z' of .* is not in the file",
        ),
        (lambda index: index["weight_map"].pop("a.weight"), "'a.weight' of .* is not in the index"),
        (
            lambda index: index["weight_map"].update({"z": "gone.safetensors"}),
            "gone.safetensors cannot be read",
        ),
        (lambda index: index.pop("weight_map"), "has no weight_map"),
    ],
)
def test_hostile_indices_are_refused(tmp_path, change, said):
    source = sharded(tmp_path / "in")
    index = json.loads((source / INDEX).read_text())
    change(index)
    (source / INDEX).write_text(json.dumps(index))
    with pytest.raises(ArtifactError, match=said):
        quantize_checkpoint(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


WORDS = {
    "bits": (lambda words: words.update(bits=9), "bits"),
    "group": (lambda words: words.update(group_size=0), "group_size"),
    "other group": (lambda words: words.update(group_size=16), "is not F32 of shape"),
    "further": (lambda words: words.update(exec=1), "exec"),
    "shape": (lambda words: words["tensors"].update({"a.weight": ["F32", [21, 71]]}), "is not U8 of shape"),
    "vector": (lambda words: words["tensors"].update({"a.weight": ["F32", [21]]}), "has the shape"),
    "dtype": (lambda words: words["tensors"].update({"a.weight": ["F99", [21, 70]]}), "tensors"),
    "missing": (lambda words: words["tensors"].update({"z": ["F32", [2, 2]]}), "'z.packed' is not U8"),
}


@pytest.mark.parametrize("case", WORDS)
def test_hostile_words_are_refused(tmp_path, case):
    change, said = WORDS[case]
    quantize_checkpoint(file(tmp_path), tmp_path / "out")
    content = (tmp_path / "out").read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    words = json.loads(header["__metadata__"]["tinypress_quantized"])
    change(words)
    header["__metadata__"]["tinypress_quantized"] = json.dumps(words)
    (tmp_path / "bad").write_bytes(_file(header, content[8 + length :]))
    with pytest.raises(ArtifactError, match=said):
        list(read_quantized_checkpoint(tmp_path / "bad"))


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"bits": 1}, InputError, "bits is 1"),
        ({"group_size": -1}, InputError, "group_size is -1"),
        ({"method": "gptq"}, InputError, "method is 'gptq'"),
        ({"keep": ("nothing.*",)}, InputError, "no tensor is called 'nothing.*'"),
    ],
)
def test_bad_settings_are_refused(tmp_path, settings, error, said):
    with pytest.raises(error, match=said.replace("*", r"\*")):
        quantize_checkpoint(file(tmp_path), tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_other_refusals(tmp_path):
    source = file(tmp_path)
    with pytest.raises(InputError, match="are the same"):
        quantize_checkpoint(source, source)
    with pytest.raises(ArtifactError, match=r"no \.safetensors file"):
        quantize_checkpoint(tmp_path / "gone", tmp_path / "out")
    quantize_checkpoint(source, tmp_path / "out")
    with pytest.raises(InputError, match="quantized already"):
        quantize_checkpoint(tmp_path / "out", tmp_path / "twice")
    safetensors.torch.save_file({"w": torch.tensor([[1.0, float("nan")]])}, tmp_path / "nan")
    with pytest.raises(ModelError, match=r"'w'.*NaN"):
        quantize_checkpoint(tmp_path / "nan", tmp_path / "out2")
    assert not (tmp_path / "out2").exists()
    safetensors.torch.save_file({"w": torch.ones(2, 2), "w.scale": torch.ones(1)}, tmp_path / "clash")
    with pytest.raises(InputError, match=r"has a tensor called w\.scale"):
        quantize_checkpoint(tmp_path / "clash", tmp_path / "out2")


@pytest.mark.slow
def test_memory_stays_the_same_however_large_the_checkpoint_is(tmp_path):
    safetensors.torch.save_file({"w": torch.randn(64, 4096)}, tmp_path / "warm.safetensors")
    peaks = []
    for rows in (2_500, 25_000):  # 41 MB and 410 MB, most of it one tensor
        source = tmp_path / f"{rows}.safetensors"
        safetensors.torch.save_file({"w": torch.randn(rows, 4096), "b": torch.randn(rows)}, source)
        started = time.perf_counter()
        child = Path(__file__).with_name("checkpoint_child.py")
        out = subprocess.run(
            [sys.executable, child, tmp_path, source], check=True, capture_output=True, text=True
        )
        print(rows, out.stdout.strip(), time.perf_counter() - started)
        peaks.append(int(out.stdout))
        source.unlink()
    assert peaks[1] < 100_000_000
    assert peaks[1] < peaks[0] + 20_000_000
    assert (tmp_path / "out.safetensors").stat().st_size < 0.16 * 25_000 * 4096 * 4 + 200_000
