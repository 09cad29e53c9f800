"""Layers leave whole: found by themselves, the rest computes as if they added nothing, and all of it opens again."""

import copy
import math

import pytest
import torch
import transformers
from rows import _export, _keep, _parameters, _shapes, _train_a_step, reopened
from torch import nn
from zoo import _image, _words, build

from tinypress.errors import InputError, ModelError
from tinypress.graph import forward_eval, tensors_of, trace
from tinypress.measure.compute import count_macs
from tinypress.search.goal import Goal
from tinypress.shrink import prune_structured, remove_layers
from tinypress.shrink.depth import _shared, spaced
from tinypress.shrink.residual import residual_layers
from tinypress.tasks.digits import DigitsNet

# How many layers of the form x + f(x) each has.
LAYERS = {
    "ResNet-18": 5, "ResNeXt": 1, "MobileNetV2": 10, "EfficientNet": 3, "ConvNeXt": 5, "ViT": 2, "DeiT": 2, "Swin": 4,
    "BERT": 2, "DistilBERT": 2, "GPT-2": 2, "Llama": 2, "T5": 4, "Whisper": 4,
}  # fmt: skip
EXPORTED = ("ConvNeXt", "GPT-2")  # an export takes longer than all else


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("depth")


# one of each way to leave and of each kind of list: `make test-all` tries the rest
FEW = ("ResNet-18", "ConvNeXt", "DistilBERT", "GPT-2")
TRIED = [pytest.param(name, marks=() if name in FEW else pytest.mark.slow) for name in LAYERS]


@pytest.mark.parametrize("name", TRIED)
def test_a_network_without_a_layer_does_all_that_a_network_does(name, folder):
    model, inputs = build(name)
    before = copy.deepcopy(model.state_dict())
    assert len(residual_layers(model, inputs)) == LAYERS[name]
    done = remove_layers(model, inputs, count=1)
    assert type(done.model) is type(model)
    (change,) = done.changes
    assert (change.what, change.was, change.now) == ("layers", 1, 0)
    gone = sum(p.numel() for p in model.get_submodule(change.layer).parameters())
    assert gone == _parameters(model) - _parameters(done.model)
    assert _shapes(done.model, inputs) == _shapes(model, inputs)
    with Passing(model.get_submodule(change.layer)):
        due = tensors_of(forward_eval(model, inputs))
    for got, want in zip(tensors_of(forward_eval(done.model, inputs)), due, strict=True):
        torch.testing.assert_close(got, want)
    _train_a_step(done.model, inputs)
    pruned = prune_structured(done.model, inputs, ratio=0.3)
    assert _parameters(pruned.model) < _parameters(done.model)
    _keep(folder / f"{name}.pruned", pruned, inputs)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    if name in EXPORTED:
        _export(pruned.model, inputs, folder / f"{name}.onnx")


def test_all_of_them_open_again_in_a_fresh_process(folder):
    assert list(folder.glob("*.archive.safetensors"))
    reopened(folder)


class Passing:
    """The layer returns what it is given first, within the block."""

    def __init__(self, layer):
        self.layer, self.forward = layer, layer.forward

    def __enter__(self):
        def passing(*args, **kwargs):
            returned = self.forward(*args, **kwargs)
            given = args[0] if args else next(iter(kwargs.values()))
            return (given, *returned[1:]) if isinstance(returned, tuple) else given

        self.layer.forward = passing

    def __exit__(self, *_):
        del self.layer.forward


SMALL = {
    "vocab_size": 50, "hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 40,
    "max_position_embeddings": 16,
}  # fmt: skip
DEEP = {
    "BERT": lambda: (
        transformers.BertForMaskedLM(transformers.BertConfig(**SMALL, num_hidden_layers=6)), (_words(),)
    ),
    "GPT-2": lambda: (
        transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=50, n_embd=24, n_layer=6, n_head=4, n_positions=16,
                                    bos_token_id=0, eos_token_id=0)
        ),
        (_words(),),
    ),
    "DistilBERT": lambda: (
        transformers.DistilBertModel(
            transformers.DistilBertConfig(vocab_size=50, dim=24, n_layers=6, n_heads=4, hidden_dim=40)
        ),
        (_words(),),
    ),
    "ViT": lambda: (
        transformers.ViTModel(
            transformers.ViTConfig(hidden_size=24, num_hidden_layers=6, num_attention_heads=4, intermediate_size=40,
                                   image_size=16, patch_size=8)
        ),
        (_image(16),),
    ),
    "Gemma": lambda: (
        transformers.Gemma3ForCausalLM(
            transformers.Gemma3TextConfig(
                **SMALL, num_hidden_layers=6, num_key_value_heads=2, head_dim=6, sliding_window=4,
                layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2,
            )
        ),
        (_words(),),
    ),
    "ConvNeXt": lambda: (
        transformers.ConvNextModel(
            transformers.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 6, 1])
        ),
        (_image(32),),
    ),
}  # fmt: skip


def deep(name):
    torch.manual_seed(0)
    model, inputs = DEEP[name]()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.1)
    return model.eval(), inputs


@pytest.mark.parametrize("name", DEEP)
def test_its_config_builds_and_loads_the_shallower_network(name, tmp_path):
    model, inputs = deep(name)
    was = copy.deepcopy(model.config.to_dict())
    done = remove_layers(model, inputs, count=2)
    assert model.config.to_dict() == was
    done.model.save_pretrained(tmp_path)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for got, want in zip(
        tensors_of(forward_eval(again, inputs)), tensors_of(forward_eval(done.model, inputs)), strict=True
    ):
        torch.testing.assert_close(got, want)


def test_what_a_config_says_of_each_layer_goes_with_the_layer():
    model, inputs = deep("Gemma")
    done = remove_layers(model, inputs, count=3, keep=["model.layers.2", "model.layers.0"])
    left = [n for n in range(6) if f"model.layers.{n}" not in [change.layer for change in done.changes]]
    assert {0, 2} <= set(left)
    assert done.model.config.layer_types == [model.config.layer_types[n] for n in left]
    assert done.model.config.num_hidden_layers == 3
    assert [layer.self_attn.layer_idx for layer in done.model.model.layers] == [0, 1, 2]
    assert [layer.self_attn.is_sliding for layer in done.model.model.layers] == [
        model.model.layers[n].self_attn.is_sliding for n in left
    ]


@pytest.mark.parametrize("name", ["GPT-2", "Gemma"])
def test_it_writes_words_from_its_cache_as_it_does_without(name):
    model, (words,) = deep(name)
    done = remove_layers(model, (words,), count=3).model.eval()
    cached, plain = (
        done.generate(words, max_new_tokens=6, do_sample=False, use_cache=use, pad_token_id=0)
        for use in (True, False)
    )
    assert torch.equal(cached, plain)


def test_t5_keeps_the_blocks_that_hold_its_positions_and_counts_each_side():
    model, inputs = build("T5")
    done = remove_layers(model, inputs, by="alternate", ratio=0.9)
    assert [change.layer for change in done.changes] == ["model.encoder.block.1", "model.decoder.block.1"]
    kept = {note.layer for note in done.notes if note.code == "TP311"}
    assert kept == {"model.encoder.block.0", "model.decoder.block.0"}
    one = remove_layers(model, inputs, count=1, keep=["model.encoder"]).model.model
    assert (one.config.num_layers, one.config.num_decoder_layers) == (2, 1)
    assert (one.encoder.config.num_layers, one.decoder.config.num_layers) == (2, 1)


def test_greedy_measures_again_after_each_layer_as_brute_force_does():
    model, inputs = deep("ViT")
    model.requires_grad_(False)
    gone: list[int] = []
    for _ in range(3):
        costs = {}
        for place in set(range(6)) - set(gone):
            tried = copy.deepcopy(model)
            tried.layers = nn.ModuleList(x for n, x in enumerate(tried.layers) if n not in (*gone, place))
            pairs = zip(tried(*inputs).values(), model(*inputs).values(), strict=True)
            costs[place] = sum(float((a - b).norm() / b.norm()) for a, b in pairs) / 2
        gone.append(min(costs, key=costs.get))
    done = remove_layers(model, inputs, count=3)
    assert [change.layer for change in done.changes] == [f"layers.{place}" for place in gone]


def test_progress_counts_every_layer_that_is_measured_and_ends_at_the_last():
    model, inputs = deep("ViT")
    told: list[tuple[str, int, int]] = []
    remove_layers(model, inputs, count=3, progress=lambda *each: told.append(each))
    assert told == [("measuring layers", n, 6 + 5 + 4) for n in range(1, 16)]


def test_a_network_that_loses_all_that_could_leave_is_told():
    model, inputs = deep("ViT")
    some = remove_layers(model, inputs, count=5)
    assert not any(note.code == "TP313" for note in some.notes)
    with pytest.raises(ModelError, match="only 6 layers"):
        remove_layers(model, inputs, count=7)
    every = remove_layers(model, inputs, count=6)
    assert [note.severity for note in every.notes if note.code == "TP313"] == ["warning"]
    assert len(every.model.layers) == 0


def test_kl_is_that_of_the_first_output():
    model, inputs = deep("BERT")
    done = remove_layers(model, inputs, count=1, distance="kl")
    p, q = (m(*inputs).logits.detach().double().log_softmax(-1) for m in (model, done.model.eval()))
    kl = float((p.exp() * (p - q)).sum(-1).mean())
    said = next(note.text for note in done.notes if note.code == "TP312")
    assert math.isclose(float(said.split("off by ")[1].split()[0]), kl, rel_tol=5e-3)


def quality_of(wanted):
    """Falls by 0.1 for each layer that is gone, by 0.5 for one of ``wanted``."""
    marks = {n: float(x.attention.q_proj.weight.detach().sum()) for n, x in enumerate(wanted.layers)}

    def measure(model):
        left = [float(x.attention.q_proj.weight.detach().sum()) for x in model.layers]
        gone = [n for n, mark in marks.items() if mark not in left]
        return 1.0 - sum(0.5 if n in (1, 4) else 0.1 for n in gone)

    return measure


def test_the_users_own_quality_decides_and_ends_it():
    model, inputs = deep("ViT")
    done = remove_layers(model, inputs, least=0.65, measure=quality_of(model))
    assert [change.layer for change in done.changes] == ["layers.0", "layers.2", "layers.3"]
    assert [note.text for note in done.notes if note.code == "TP312"][-1].endswith("the quality is 0.7")
    assert "less than 0.65" in done.notes[-1].text


@pytest.mark.parametrize(
    ("count", "stay", "places"),
    [(12, 6, (0, 2, 4, 7, 9, 11)), (6, 3, (0, 3, 5)), (2, 1, (0,)), (4, 4, (0, 1, 2, 3))],
)
def test_every_second_is_evenly_spaced_with_both_ends(count, stay, places):
    assert spaced(count, stay) == places  # 6 of 12 are those that DistilBERT's authors took


def test_shares_are_in_proportion():
    assert _shared(3, [4, 2, 2]) == [1, 1, 1]
    assert all(sum(_shared(due, [3, 4, 6, 3])) == due for due in range(17))


def test_alternate_leaves_every_second_layer():
    model, inputs = deep("DistilBERT")
    done = remove_layers(model, inputs, by="alternate")
    assert [change.layer for change in done.changes] == [f"transformer.layer.{n}" for n in (1, 2, 4)]
    assert (done.model.config.n_layers, done.model.transformer.n_layers) == (3, 3)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(6, 8), nn.Linear(8, 6)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))


class Own(nn.Module):
    """Counts its layers, holds one by name and two in a sequence, and names the last of another list."""

    def __init__(self) -> None:
        super().__init__()
        self.n_blocks = 3
        self.blocks = nn.ModuleList([Block() for _ in range(3)])
        self.pair = nn.Sequential(Block(), nn.ReLU(), Block())
        self.alone, self.head = Block(), nn.Linear(6, 2)
        self.zipped, self.scales = (
            nn.ModuleList([Block(), Block()]),
            nn.ParameterList([torch.ones(6) * 2] * 2),
        )

    def forward(self, x):
        for place in range(self.n_blocks):
            x = self.blocks[place](x)
        for block, scale in zip(self.zipped, self.scales, strict=True):
            x = block(x) * scale
        return self.head(self.alone(self.pair(x)))


def test_layers_of_ones_own_network_leave_wherever_they_stand(tmp_path):
    torch.manual_seed(0)
    model, x = Own(), torch.randn(4, 6)
    model.blocks[1].requires_grad_(False)
    done = remove_layers(model, (x,), count=8)
    assert len(done.model.blocks) == done.model.n_blocks == 0
    assert [type(each).__name__ for each in done.model.pair] == ["Identity", "ReLU", "Identity"]
    assert [type(each).__name__ for each in done.model.zipped] == ["Identity", "Identity"]
    assert isinstance(done.model.alone, nn.Identity)
    torch.testing.assert_close(done.model(x), model.head(torch.relu(4 * x)))
    assert done.model.training


def test_the_branch_that_a_network_adds_itself(tmp_path):
    from tinypress.archive import read_archive, write_archive

    torch.manual_seed(0)
    stock, x = DigitsNet().eval(), torch.rand(2, 1, 28, 28)
    done = remove_layers(stock, (x,), count=1)
    assert [change.layer for change in done.changes] == ["conv1", "norm1", "conv2", "norm2"]
    zeroed = copy.deepcopy(stock)
    nn.init.zeros_(zeroed.norm2.weight)
    nn.init.zeros_(zeroed.norm2.bias)
    torch.testing.assert_close(done.model(x), zeroed(x))
    pruned = prune_structured(done.model, (x,), ratio=0.5)
    assert pruned.model.widen.out_channels == 24
    write_archive(tmp_path / "n.archive.safetensors", pruned)
    again = read_archive(tmp_path / "n.archive.safetensors", stock).model
    assert torch.equal(again(x), pruned.model(x))


def test_layers_that_are_one_or_run_twice_or_are_frozen():
    torch.manual_seed(0)
    one = Block()
    model = nn.Sequential(one, nn.ReLU(), one, Block(), nn.Linear(6, 2)).requires_grad_(False)
    assert [layer.path for layer in residual_layers(model, (torch.randn(2, 6),))] == ["3"]
    encoder = nn.TransformerEncoder(
        nn.TransformerEncoderLayer(12, 2, 16, batch_first=True), 3, enable_nested_tensor=False
    )
    done = remove_layers(encoder.eval(), (torch.randn(2, 5, 12),), count=2)
    assert done.model.num_layers == len(done.model.layers) == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, "one of count, ratio and least"),
        ({"count": 1, "ratio": 0.5}, "one of count"),
        ({"count": True}, "count is True"),
        ({"count": 0}, "count is 0"),
        ({"count": 9}, "only 8 layers can leave"),
        ({"ratio": 1.0}, "not a fraction"),
        ({"count": 1, "by": "magnitude"}, "'magnitude' is none of"),
        ({"count": 1, "distance": "cosine"}, "'cosine' is none of"),
        ({"least": 0.5}, "there is no measure"),
        ({"by": "alternate", "measure": len}, "measures nothing"),
        ({"count": 1, "measure": lambda model: float("nan")}, "measure returned nan"),
        ({"count": 1, "calibration": (torch.randn(3, 7),)}, "does not run on the calibration"),
        ({"count": 1, "calibration": (torch.randn(0, 6),)}, "no samples"),
        ({"count": 1, "keep": ["block"]}, "Did you mean 'blocks'"),
        ({"count": 1, "keep": ["blocks", "pair", "alone", "zipped"]}, "no layer can leave"),
    ],
)
def test_bad_settings_are_refused(settings, says):
    with pytest.raises(InputError) as refused:
        remove_layers(Own(), (torch.randn(4, 6),), **settings)
    assert says in str(refused.value)


def test_costs_of_a_layer_are_exact_in_macs():
    for name in ("BERT", "ResNet-18"):
        model, inputs = build(name)
        traced = trace(model, inputs)
        for layer in residual_layers(model, inputs)[:2]:
            made = remove_layers(
                model, inputs, count=1, keep=[x.path for x in residual_layers(model, inputs) if x != layer]
            ).model
            assert Goal("macs", 1).without(traced, model, made, [layer.path]) == count_macs(
                trace(made, inputs)
            )


class Overwrites(nn.Module):
    def forward(self, x):
        with torch.no_grad():
            x.requires_grad_(False)
        return x


def test_a_network_that_refuses_gradients_is_named():
    model = nn.Sequential(Block(), Wrapped(), nn.Linear(6, 2))
    with pytest.raises(ModelError, match="does not run with gradients"):
        remove_layers(model, (torch.randn(2, 6),), count=1)


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.linear = Overwrites(), nn.Linear(6, 6)

    def forward(self, x):
        return self.linear(self.inner(x))


def test_a_network_without_residual_layers_is_refused():
    with pytest.raises(ModelError, match="prune_structured"):
        remove_layers(
            nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), (torch.randn(2, 4),), count=1
        )
