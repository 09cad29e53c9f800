"""Architecture search by pruning, step by step to a budget: Yang et al., "NetAdapt" (2018), algorithm 1.

In each round every group of neurons proposes the least cut that reaches the round's cost, and every layer that can
leave proposes to leave. Each proposal is trained for a short while and evaluated, and the best is kept. The cost to
come down by shrinks from round to round, so that the last rounds choose finely.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError
from tinypress.facts import Change, Compressed
from tinypress.files import canonical
from tinypress.layers import copy_model
from tinypress.search.goal import Goal
from tinypress.search.proposals import Choices, Proposal, proposals

Evaluate = Callable[[nn.Module], float]
"""The quality of a network on validation data, the higher the better."""

Recover = Callable[[nn.Module, int], nn.Module]
"""Trains a proposal for a short while, given the round's number, and returns it."""

Watch = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Tried:
    """One network that was evaluated: in which round, what was cut from the round's network, its cost and quality."""

    round: int
    what: str
    cost: float
    quality: float
    chosen: bool = False


@dataclass(frozen=True)
class Searched:
    """What a search returns: the network, every network that was tried, and what was asked for.

    ``measured_ms`` is the milliseconds of the result in ONNX Runtime, where the budget is one of latency.
    """

    compressed: Compressed
    trace: tuple[Tried, ...]
    unit: str
    budget: float
    cost: float
    measured_ms: float | None = None


@dataclass(frozen=True)
class Pace:
    """The first round comes down by ``step`` of the first cost, each later one by ``decay`` times the one before."""

    step: float = 0.1
    decay: float = 0.96


@dataclass(frozen=True)
class State:
    """Where a search stands after so many rounds."""

    model: nn.Module
    rounds: int = 0
    changes: tuple[Change, ...] = ()
    trace: tuple[Tried, ...] = ()


def adapt_architecture(
    call: str,
    model: nn.Module,
    example_inputs: tuple[Tensor, ...],
    goal: Goal,
    evaluate: Evaluate,
    *,
    recover: Recover | None = None,
    choices: Choices | None = None,
    pace: Pace | None = None,
    load: Callable[[int], State | None] = lambda rounds: None,
    save: Callable[[State], None] = lambda state: None,
    watch: Watch = lambda what, done, total: None,
) -> State:
    """Cut ``model`` round by round until ``goal`` is met; see the module.

    Args:
        evaluate: of proposals that lose nothing the highest wins, else the one that loses least for what it saves,
            because a layer can save more than a round asks for; among equals the cheaper.
        recover: how a proposal is trained before it is evaluated.
        load: the state after a round that an earlier run saved.
        save: told the state after each round.

    Raises:
        InputError: ``evaluate`` returns no finite number, or ``recover`` no network.
        ModelError: nothing more can be cut, and the goal is not met.
    """
    choices, pace = choices or Choices(), pace or Pace()
    state = State(copy_model(model))
    first = cost = goal.cost_of(state.model, example_inputs)
    quality: float | None = None
    while cost > goal.most:
        number = state.rounds + 1
        watch(
            "searching", round(1000 * (first - cost) / first), round(1000 * max(first - goal.most, 0) / first)
        )
        kept = load(number)
        if kept is not None:
            state = kept
        else:
            if quality is None:
                quality = _quality(call, evaluate, state.model)
            target = max(goal.most, cost - first * pace.step * pace.decay**state.rounds)
            state = _round(
                call, state, example_inputs, goal, target, evaluate, recover, choices, cost, quality, watch
            )
            save(state)
        last = next(each for each in state.trace if each.chosen and each.round == number)
        quality, cost = last.quality, last.cost
    return state


def _round(
    call: str,
    state: State,
    example_inputs: tuple[Tensor, ...],
    goal: Goal,
    target: float,
    evaluate: Evaluate,
    recover: Recover | None,
    choices: Choices,
    cost: float,
    quality: float,
    watch: Watch,
) -> State:
    number = state.rounds + 1
    tried: list[tuple[Proposal, nn.Module, float]] = []
    for proposal in proposals(state.model, example_inputs, goal, target, choices):
        if proposal.cost > target and tried:  # what falls short counts only where nothing else is left
            break
        watch(f"trying {proposal.what}"[:60], len(tried), max(len(tried) + 1, 1))
        made = proposal.model
        if recover is not None:
            with torch.random.fork_rng(devices=[]):
                made = recover(made, number)
            if not isinstance(made, nn.Module):
                raise InputError(call, f"recover returned a {type(made).__name__}", "Return the network")
        tried.append((proposal, made, _quality(call, evaluate, made)))
    if not tried:
        raise ModelError(
            call,
            f"{goal.unit} cannot fall to {goal.most:.6g}: with all that may leave gone they are {cost:.6g}",
            "Allow more, keep fewer layers, or lower multiple and min_width",
        )

    def worse(place: int) -> tuple[float, float]:
        proposal, _, found = tried[place]
        return _loss(quality, cost, found, proposal.cost), proposal.cost

    best = min(range(len(tried)), key=worse)
    facts = tuple(
        Tried(number, proposal.what, proposal.cost, found, place == best)
        for place, (proposal, _, found) in enumerate(tried)
    )
    proposal, made, _ = tried[best]
    return State(made, number, joined(state.changes, proposal.changes), (*state.trace, *facts))


def _loss(quality: float, cost: float, now: float, smaller: float) -> float:
    """The lower the better: quality lost for what is saved, or minus the quality that is won."""
    lost = quality - now
    return lost / max(cost - smaller, 1e-12) if lost > 0 else lost


def _quality(call: str, evaluate: Evaluate, model: nn.Module) -> float:
    quality = float(evaluate(model))
    if not abs(quality) < float("inf"):
        raise InputError(call, f"evaluate returned {quality}", "Return the quality as a finite number")
    return quality


def joined(before: tuple[Change, ...], now: tuple[Change, ...]) -> tuple[Change, ...]:
    """Changes of several rounds as one; the widths of a layer that left in the end are not told."""
    found = {(each.layer, each.what): each for each in before}
    for each in now:
        old = found.get((each.layer, each.what))
        found[each.layer, each.what] = each if old is None else replace(each, was=old.was)
    gone = [layer for layer, what in found if what == "layers" and found[layer, what].now == 0]
    return tuple(
        each
        for each in found.values()
        if each.what == "layers" or not any(f"{each.layer}.".startswith(f"{layer}.") for layer in gone)
    )


def named(function: object) -> str:
    """A metric or loss by its name and, where it is a function, what it does; two of other code are told apart."""
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", None) or repr(getattr(function, "name", function))
    return name if code is None else f"{name} {code.co_code.hex()} {code.co_consts!r} {code.co_names}"


def fingerprint(model: nn.Module, data: tuple[Tensor, ...], *settings: object) -> str:
    """One word for a network and what is asked of it: what a resumed search must share with the one before."""
    digest = hashlib.sha256(canonical([repr(each) for each in settings]))
    for name, tensor in (*model.state_dict().items(), *(("", each) for each in data)):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:24]
