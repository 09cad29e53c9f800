"""What every step must have left as it was, looked up in the tensors: finite, runnable, zeros, widths, integers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from tinypress.errors import InputError, ModelError
from tinypress.facts import Compressed, Note
from tinypress.layers import stock_name
from tinypress.press.composition import Contract, Promise, contract_of
from tinypress.press.step import Step
from tinypress.quantize import dequantize_layer_weights

_ENGINE = "Check the engine's function or the data"


def kept_notes(
    step: Step, before: Compressed, after: Compressed, example: tuple[Tensor, ...], shape: torch.Size
) -> tuple[Note, ...]:
    """Check that ``after`` keeps what ``step`` has to keep of ``before``.

    Args:
        example: inputs that the network is run on.
        shape: of the original network's output for them.

    Returns:
        Notes on what came out otherwise than its user may expect: pruning that found nothing left to prune
        (TP404), a cut that took zeros away with it (TP405).

    Raises:
        InputError: the step returned the network it was given.
        ModelError: the step broke something.
    """
    call = f"step {step.model_dump()}"
    contract = contract_of(step)
    if after.model is before.model:
        raise InputError(call, "the step returned the network it was given", "Return a changed copy")
    _check_finite(call, after.model)
    _check_runs(call, after.model, example, shape)
    _check_integers(call, after, contract)
    if contract.restarts:
        return ()
    was, now = _by_stock_name(before.model), _by_stock_name(after.model)
    kept = {name: (was[name], now[name]) for name in now if name in was}
    _check_widths(call, kept, contract)
    if Promise.ZEROS in contract.breaks and not before.pruned:
        return ()
    _check_zeros(call, before, after, kept, contract)
    return _notes(step, before, after, kept, contract)


def _check_finite(call: str, model: nn.Module) -> None:
    for name, values in (*model.named_parameters(), *model.named_buffers()):
        if values.is_floating_point() and not bool(torch.isfinite(values).all()):
            raise ModelError(call, f"{name!r} became NaN or infinite", _ENGINE)


def _check_runs(call: str, model: nn.Module, example: tuple[Tensor, ...], shape: torch.Size) -> None:
    with torch.no_grad():
        try:
            output = copy.deepcopy(model).eval()(*example)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            problem = f"the network no longer runs ({str(error).splitlines()[0]})"
            raise ModelError(call, problem, "Check the engine's function") from error
    if output.shape != shape:
        raise ModelError(
            call,
            f"the output's shape became {tuple(output.shape)} instead of {tuple(shape)}",
            "Keep the network's head",
        )
    if not bool(torch.isfinite(output).all()):
        raise ModelError(call, "the network's output became NaN or infinite", _ENGINE)


def _check_integers(call: str, after: Compressed, contract: Contract) -> None:
    if (after.plan is not None) != (Promise.INTEGERS in contract.ensures):
        what = "no plan of integers came back" if after.plan is None else "a plan of integers came back"
        raise ModelError(call, what, "A plan comes of quantization alone, as the last step")
    if after.plan is None:
        return
    parameters = dict(after.model.named_parameters(remove_duplicate=False))
    for name, packed in after.plan.weights.items():
        weight = parameters[name]
        if not torch.equal(dequantize_layer_weights(packed).to(weight.dtype).reshape(weight.shape), weight):
            raise ModelError(call, f"{name!r} is not what its integers stand for", _ENGINE)


def _check_widths(call: str, kept: dict[str, tuple[Tensor, Tensor]], contract: Contract) -> None:
    if not contract.keeps_widths:
        return
    for name, (was, now) in kept.items():
        if was.shape != now.shape:
            raise ModelError(
                call,
                f"{name!r} became {tuple(now.shape)}, and was {tuple(was.shape)}",
                "Keep the widths in this technique",
            )


def _check_zeros(
    call: str,
    before: Compressed,
    after: Compressed,
    kept: dict[str, tuple[Tensor, Tensor]],
    contract: Contract,
) -> None:
    pruned = {stock_name(before.model, name) for name in before.pruned}
    marked = {stock_name(after.model, name) for name in after.pruned}
    for name in sorted(pruned & kept.keys()):
        was, now = kept[name]
        if name not in marked:
            raise ModelError(call, f"{name!r} is no longer known as pruned", "Hand on Compressed.pruned")
        if _revived(was, now, contract):
            raise ModelError(
                call,
                f"pruned zeros of {name!r} came back to life",
                "Keep zeros at zero in this technique",
            )


def _revived(was: Tensor, now: Tensor, contract: Contract) -> bool:
    if was.shape == now.shape:
        return bool(((was == 0) & (now != 0)).any())
    if int(now.count_nonzero()) > int(was.count_nonzero()):
        return True
    # a cut takes weights away and changes none of those it leaves
    return not contract.trains and not bool(torch.isin(now, was).all())


def _notes(
    step: Step,
    before: Compressed,
    after: Compressed,
    kept: dict[str, tuple[Tensor, Tensor]],
    contract: Contract,
) -> tuple[Note, ...]:
    names = {stock_name(after.model, name) for name in after.pruned} & kept.keys()
    was, now = (_sparsity([kept[name][side] for name in names]) for side in (0, 1))
    if Promise.ZEROS in contract.ensures and names and was == now:
        text = f"{step.technique!r} made no further weight zero: {was:.1%} of them were zero before it, and are now"
        return (Note("TP404", "warning", None, text),)
    if not contract.keeps_widths and was - now > 0.005:
        text = (
            f"{was:.1%} of the pruned weights were zero before {step.technique!r} and {now:.1%} are now: zeros left "
            "with what it removed. Prune after the cut for the sparsity that the recipe names"
        )
        return (Note("TP405", "note", None, text),)
    return ()


def _sparsity(tensors: list[Tensor]) -> float:
    count = sum(x.numel() for x in tensors)
    return 1 - sum(int(x.count_nonzero()) for x in tensors) / count if count else 0.0


def _by_stock_name(model: nn.Module) -> dict[str, Tensor]:
    named = model.named_parameters(remove_duplicate=False)
    return {stock_name(model, name): x.detach() for name, x in named}
