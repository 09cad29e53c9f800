"""A budget is met from below, within 2 % where one step is that fine, by costs that are counted in another way here."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from zoo import build

from tinypress.errors import InputError, ModelError
from tinypress.shrink import Budget, prune_structured


class Wide(nn.Module):
    """Convolutions with a residual, a depthwise one, batch norm and a head: wide enough for fine steps."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 64, 3, padding=1)
        self.norm = nn.BatchNorm2d(64)
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.mix = nn.Conv2d(64, 64, 1)
        self.grow = nn.Conv2d(64, 96, 3, stride=2)
        self.hidden = nn.Linear(96, 128)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = x + self.mix(self.depthwise(x))
        x = torch.relu(self.grow(x)).mean((2, 3))
        return self.head(torch.relu(self.hidden(x)))


EXAMPLE = (torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(0)),)


def macs(model: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Of one sample, by torch's own counter, which counts two operations for each."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(*inputs)
    return counter.get_total_flops() / 2 / len(inputs[0])


def parameters(model: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    return sum(parameter.numel() for parameter in model.parameters())


def bytes_of(model: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *model.buffers()))


COUNTS = {"macs": macs, "parameters": parameters, "bytes": bytes_of}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize("cost", COUNTS)
@pytest.mark.parametrize("share", [0.2, 0.5, 0.85])
def test_a_share_of_what_it_costs_now(cost: str, share: float) -> None:
    model = Wide()
    count = COUNTS[cost]
    most = share * count(model, EXAMPLE)
    now = count(prune_structured(model, EXAMPLE, budget=Budget(**{cost: share})).model, EXAMPLE)
    assert 0.98 * most <= now <= most


def test_a_whole_number() -> None:
    done = prune_structured(Wide(), EXAMPLE, budget=Budget(parameters=20_000))
    assert 19_600 <= parameters(done.model, EXAMPLE) <= 20_000


@pytest.mark.parametrize("name", ["MobileNetV2", "BERT"])
def test_real_designs(name: str) -> None:
    model, inputs = build(name)
    most = 0.5 * macs(model, inputs)
    now = macs(prune_structured(model, inputs, budget=Budget(macs=0.5), per="macs").model, inputs)
    assert 0.98 * most <= now <= most


def test_steps_end_at_the_goal_and_train_between() -> None:
    seen: list[float] = []

    def recover(model: nn.Module, step: int) -> nn.Module:
        seen.append(macs(model, EXAMPLE))
        return model

    model = Wide()
    whole = macs(model, EXAMPLE)
    done = prune_structured(model, EXAMPLE, budget=Budget(macs=0.3), steps=3, recover=recover)
    assert len(seen) == 3
    assert 0.98 * 0.3 * whole <= macs(done.model, EXAMPLE) <= 0.3 * whole
    factors = [now / was for was, now in zip([whole, *seen], seen, strict=False)]
    assert max(factors) - min(factors) < 0.03


def test_a_measured_cost_ends_below_within_a_step() -> None:
    """What ``measure`` returns is all that counts; here parameters stand for milliseconds."""
    model = Wide()
    asked: list[float] = []

    def measure(network: nn.Module) -> float:
        asked.append(parameters(network, EXAMPLE) / 1000)
        return asked[-1]

    told: list[tuple[str, int, int]] = []
    budget = Budget(latency_ms=20.0, measure=measure)
    done = prune_structured(model, EXAMPLE, budget=budget, progress=lambda *each: told.append(each))
    numbers = [done for what, done, _ in told if what == "measuring smaller networks"]
    assert numbers == list(range(1, len(asked) + 1))
    assert told[-1] == ("cutting", 1, 1)
    assert 18.0 <= parameters(done.model, EXAMPLE) / 1000 <= 20.0
    assert len(asked) <= 14  # each one is an export and a measurement


@pytest.mark.parametrize("multiple", [4, 8])
def test_widths_are_multiples(multiple: int) -> None:
    model = prune_structured(Wide(), EXAMPLE, budget=Budget(macs=0.4), multiple=multiple).model
    widths = [model.first.out_channels, model.grow.out_channels, model.hidden.out_features]
    assert all(width % multiple == 0 for width in widths)


def test_no_layer_falls_below_the_least_width() -> None:
    model = prune_structured(Wide(), EXAMPLE, budget=Budget(macs=0.2), min_width=20).model
    assert min(model.first.out_channels, model.grow.out_channels, model.hidden.out_features) >= 20


@pytest.mark.parametrize("steps", [1, 3, 6, 17, 30])
@pytest.mark.parametrize("scope", ["group", "global"])
def test_a_ratio_in_steps_ends_where_it_does_at_once(steps: int, scope: str) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    done = prune_structured(model, (torch.randn(4, 8),), ratio=0.25, steps=steps, scope=scope).model
    assert done[0].out_features + done[2].out_features == 24


class Literal(nn.Module):
    """One layer whose width the code counts on."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 64), nn.Linear(64, 64), nn.Linear(64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x).relu())
        assert x.shape[-1] == 64
        return self.c(x.relu())


def test_a_budget_holds_where_a_group_has_to_be_given_back() -> None:
    done = prune_structured(Literal(), (torch.randn(4, 8),), budget=Budget(parameters=0.2))
    assert done.model.b.out_features == 64
    assert parameters(done.model, ()) <= 0.2 * parameters(Literal(), ())
    assert [note.layer for note in done.notes if note.code == "TP302"] == ["b"]
    with pytest.raises(ModelError, match="cannot fall to"):
        prune_structured(Literal(), (torch.randn(4, 8),), budget=Budget(parameters=0.05))


def _fails(network: nn.Module) -> float:
    raise RuntimeError("the clock stopped")


@pytest.mark.parametrize(
    "measure", [lambda m: float("nan"), lambda m: None, lambda m: 0.0, lambda m: -1.0, lambda m: "3", _fails]
)
def test_what_is_no_measurement_is_refused(measure: object) -> None:
    with pytest.raises(InputError, match="measure"):
        prune_structured(Wide(), EXAMPLE, budget=Budget(latency_ms=1.0, measure=measure), steps=3)


@pytest.mark.parametrize(
    "recover",
    [lambda m, s: Wide(), lambda m, s: None, lambda m: m, 3],
    ids=["whole", "none", "one", "number"],
)
def test_a_recovery_returns_the_network_it_was_given(recover: object) -> None:
    with pytest.raises(InputError, match="recover"):
        prune_structured(Wide(), EXAMPLE, ratio=0.5, recover=recover)


def test_numpys_numbers_are_numbers() -> None:
    done = prune_structured(Wide(), EXAMPLE, ratio=np.float32(0.5), multiple=np.int64(4))
    assert done.model.hidden.out_features == 64


@pytest.mark.parametrize(
    "wrong",
    [
        {"budget": {"macs": 0.5}},
        {"budget": 0.5},
        {"budget": Budget(macs=10**400)},
        {"ratio": 0.5, "keep": None},
        {"ratio": 0.5, "keep": "head"},
        {"ratio": 0.5, "losses": [3], "importance": "taylor"},
        {"ratio": 0.5, "losses": lambda m: m, "importance": "taylor"},
        {"ratio": 0.5, "calibration": EXAMPLE[0], "importance": "wanda"},
        {"ratio": 0.5, "seed": "a", "importance": "random"},
        {"ratio": 0.5, "seed": 2**70, "importance": "random"},
        {"ratio": True},
    ],
    ids=lambda settings: "-".join(settings),
)
def test_settings_of_another_kind_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError, match="prune_structured"):
        prune_structured(Wide(), EXAMPLE, **wrong)


@pytest.mark.parametrize(
    ("loss", "said"),
    [(lambda m: torch.zeros(()), "hangs on no parameter"), (lambda m: m(1, 2, 3), "a loss failed")],
)
def test_a_loss_that_cannot_be_used_is_refused(loss: object, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        prune_structured(Wide(), EXAMPLE, ratio=0.5, importance="taylor", losses=[loss])


def test_measure_never_gets_the_network_itself() -> None:
    model = Wide().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def measure(network: nn.Module) -> float:
        cost = parameters(network.eval(), EXAMPLE) / 1000
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.fill_(7.0)
        return cost

    prune_structured(model, EXAMPLE, budget=Budget(latency_ms=20.0, measure=measure), steps=2)
    assert model.training
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items())


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"progress": None}, "progress is a NoneType"),
        ({"compare": "no"}, "compare is 'no'"),
        ({"budget": Budget(latency_ms=1.0, measure=lambda network: 10**400)}, "measure returned"),
    ],
)
def test_what_tells_and_measures_is_checked(settings, says) -> None:
    goal = {} if "budget" in settings else {"ratio": 0.5}
    with pytest.raises(InputError, match=says):
        prune_structured(Wide(), EXAMPLE, **goal, **settings)
