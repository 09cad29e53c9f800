"""The file itself: small, the same in every run, whole or absent, and told apart tensor by tensor."""

import os
import subprocess
import sys
from pathlib import Path

import archive_networks as networks
import pytest
import torch
from torch import nn

from tinypress.archive import archive_layers, read_archive, write_archive
from tinypress.errors import ArtifactError, RunError
from tinypress.facts import Compressed, QuantPlan

_HERE = Path(__file__).parent


def _hundred_thousand() -> nn.Module:
    """About 100,000 parameters, as batch norm leaves them once it is folded."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.Identity(),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3),
        nn.Identity(),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3),
        nn.Identity(),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 160),
        nn.ReLU(),
        nn.Linear(160, 10),
    )


def test_ninety_percent_zeros_in_int8_cost_at_most_7_percent_of_fp32(tmp_path):
    model = _hundred_thousand()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert 95_000 < parameters < 105_000
    write_archive(tmp_path / "a", networks.quantized(networks.pruned(model), 8), name="prune+int8")
    size = (tmp_path / "a").stat().st_size
    assert size <= 0.07 * 4 * parameters
    write_archive(tmp_path / "dense", networks.quantized(Compressed(_hundred_thousand()), 8))
    assert size < 0.3 * (tmp_path / "dense").stat().st_size


def test_everything_but_the_weights_costs_little(tmp_path):
    write_archive(tmp_path / "a", networks.quantized(networks.pruned(_hundred_thousand()), 8))
    stored = sum(fact.encoded_bytes for fact in archive_layers(tmp_path / "a"))
    # header, names, shapes and plan of 13 layers with 10 tensors
    assert (tmp_path / "a").stat().st_size - stored < 1200


def test_two_writes_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_archive(tmp_path / name, networks.quantized(networks.pruned(networks.convolutional()), 8))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_the_order_in_which_a_plan_lists_its_values_does_not_matter(tmp_path):
    kept = networks.quantized(Compressed(networks.convolutional()), 8)
    for name, values in (("a", kept.plan.values), ("b", dict(reversed(kept.plan.values.items())))):
        plan = QuantPlan(kept.plan.weights, values)
        write_archive(tmp_path / name, Compressed(kept.model, plan=plan))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


_WRITER = """
import sys, archive_networks as networks
from pathlib import Path
from tinypress.archive import write_archive
model = networks.trained(networks.Tied())
write_archive(Path(sys.argv[1]), networks.quantized(networks.pruned(model), 4, "affine"))
"""


def test_processes_with_other_hash_seeds_give_the_same_bytes(tmp_path):
    running = [
        subprocess.Popen([sys.executable, "-c", _WRITER, tmp_path / seed], env=_environment(seed))
        for seed in ("0", "12345")
    ]
    assert [process.wait() for process in running] == [0, 0]
    assert (tmp_path / "0").read_bytes() == (tmp_path / "12345").read_bytes()


def _environment(hash_seed: str = "0") -> dict[str, str]:
    return {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(_HERE)}


_FULL = """
import resource, signal, sys, archive_networks as networks
from pathlib import Path
from tinypress.archive import write_archive
from tinypress.errors import RunError
from tinypress.facts import Compressed
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
refused = 0
for path in sys.argv[1:]:
    try:
        write_archive(Path(path), Compressed(networks.convolutional()))
    except RunError as error:
        print(error)
        refused += 1
sys.exit(7 if refused == 2 else 1)
"""


def test_a_full_disk_leaves_no_file_and_keeps_what_was_there(tmp_path):
    (tmp_path / "there").write_bytes(b"before")
    ended = subprocess.run(
        [sys.executable, "-c", _FULL, tmp_path / "new", tmp_path / "there"],
        env=_environment(),
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 7, ended.stderr
    assert ended.stdout.count("could not be written (File too large)") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    assert (tmp_path / "there").read_bytes() == b"before"


def test_a_folder_that_cannot_be_made_leaves_nothing(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError):
        write_archive(tmp_path / "file" / "a", Compressed(networks.convolutional()))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_layers_are_told_without_the_stock_network(tmp_path):
    model = networks.convolutional()
    model[4].bias.data[:] = 0.0
    compressed = networks.quantized(networks.pruned(model), 4)
    write_archive(tmp_path / "a", compressed)
    facts = {fact.name: fact for fact in archive_layers(tmp_path / "a")}
    assert list(facts) == list(model.state_dict())
    for name, tensor in read_archive(tmp_path / "a", networks.convolutional()).model.state_dict().items():
        assert facts[name].shape == tuple(tensor.shape)
        assert facts[name].nonzero == int(torch.count_nonzero(tensor))
    dense, sparse, zeros = facts["0.bias"], facts["4.weight"], facts["4.bias"]
    assert (dense.encoding, dense.bits, dense.encoded_bytes, dense.dtype) == ("dense", 32, 32, "F32")
    assert (zeros.encoding, zeros.bits, zeros.encoded_bytes, zeros.nonzero) == ("bitmap", 32, 2, 0)
    assert (sparse.encoding, sparse.bits, sparse.layer, sparse.kind) == ("bitmap+packed4", 4, "4", "Linear")
    assert sparse.encoded_bytes == 4 * 16 + 1280 // 8 + -(-sparse.nonzero // 2)
    dense_integers = networks.quantized(Compressed(networks.convolutional()), 3)
    write_archive(tmp_path / "b", dense_integers)
    packed = {fact.name: fact for fact in archive_layers(tmp_path / "b")}["4.weight"]
    assert (packed.encoding, packed.encoded_bytes) == ("packed3", 4 * 16 + 1280 * 3 // 8)


def test_encoded_bytes_fill_the_data(tmp_path):
    write_archive(tmp_path / "a", networks.pruned(networks.trained(networks.Tied())))
    file = (tmp_path / "a").read_bytes()
    header = 8 + int.from_bytes(file[:8], "little")
    assert sum(fact.encoded_bytes for fact in archive_layers(tmp_path / "a")) == len(file) - header
    # the shared weight is there once
    assert [fact.name for fact in archive_layers(tmp_path / "a")] == [
        "embedding.weight",
        "middle.weight",
        "middle.bias",
    ]


def test_a_tensor_that_lies_is_named_without_the_stock_network_too(tmp_path):
    path = tmp_path / "a"
    write_archive(path, networks.quantized(networks.pruned(networks.convolutional()), 8))
    file = bytearray(path.read_bytes())
    file[-1] ^= 1
    path.write_bytes(bytes(file))
    with pytest.raises(ArtifactError, match=r"archive_layers\('a'\): crc32"):
        archive_layers(path)
