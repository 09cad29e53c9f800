"""Every architecture is pruned twice, runs, trains, is exported, kept and opened again in a fresh process."""

import random

import pytest
from rows import reopened, try_row
from zoo import ZOO

RATIOS = (0.25, 0.5, 0.75)
# An export takes longer than all else: some here, all of them where `make test-all` writes the page.
EXPORTED = ("ResNeXt", "U-Net", "ViT, fused qkv", "BERT", "GRU")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("zoo")


@pytest.mark.parametrize("name", ZOO)
def test_a_pruned_network_does_all_that_a_network_does(name, folder):
    ratio = random.Random(name).choice(RATIOS)
    row = try_row(name, ratio, folder, onnx=name in EXPORTED)
    assert row.parameters[2] < row.parameters[1] < row.parameters[0]


def test_all_of_them_open_again_in_a_fresh_process(folder):
    assert list(folder.glob("*.archive.safetensors"))
    reopened(folder)
