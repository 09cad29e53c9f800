"""An activation that is trained as its integers will be: 8 bits, zero always exact."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from tinypress.facts import QuantizedValue
from tinypress.quantize.fake import fake_quantize, fake_quantize_learned

_SMOOTHING = 0.99  # Jacob et al. 2018, §3.1: "close to 1, so that observed ranges are smoothed"


class FakeValue(nn.Module):
    """Scale and zero point of one value of the graph, from where calibration put them.

    A learnt scale is start * exp(move), as for weights, with the zero point left where it is. One that is not learnt
    follows the range of the batches by an exponential moving average (Jacob et al. 2018, arXiv:1712.05877, §3.1)
    until it is frozen.

    Args:
        node: the value's node in the traced graph.
        names: its names in the ONNX graph, with those of what only passes its integers on.
        bound: of a value that a Clip has cut off here: with zero point 0 no integer stands for more, else the runtime
            had to keep the Clip beside its integer kernel.
    """

    def __init__(
        self,
        node: str,
        names: tuple[str, ...],
        start: QuantizedValue,
        learned: bool,
        bound: float = math.inf,
    ) -> None:
        super().__init__()
        self.node, self.names, self.bits, self.learned = node, names, start.bits, learned
        self.largest = _largest_scale(bound, start.bits) if start.zero_point == 0 else math.inf
        if learned:
            self.register_buffer("start", torch.tensor([start.scale]))
            self.register_buffer("zero_point", torch.tensor([start.zero_point], dtype=torch.int32))
            self.move = nn.Parameter(torch.zeros(1))
        else:
            most = (1 << start.bits) - 1
            self.register_buffer("low", torch.tensor(-start.zero_point * start.scale))
            self.register_buffer("high", torch.tensor((most - start.zero_point) * start.scale))

    def forward(self, value: Tensor, observing: bool) -> Tensor:
        """What the integers of ``value`` stand for; ``observing`` lets its range follow the batch."""
        if observing and not self.learned:
            self._follow(value.detach())
        scale, zero = self._scale()
        if not self.learned:
            return fake_quantize(value, scale, zero, self.bits, "affine")
        count = value[0].numel()
        return fake_quantize_learned(value, scale, zero, self.bits, "affine", count)

    def decided(self) -> QuantizedValue:
        """Scale and zero point as the plan holds them."""
        scale, zero = self._scale()
        return QuantizedValue(float(scale.detach()), int(zero), self.bits)

    def _follow(self, value: Tensor) -> None:
        for mine, now in ((self.low, value.amin().clamp(max=0)), (self.high, value.amax().clamp(min=0))):
            assert isinstance(mine, Tensor)
            mine.mul_(_SMOOTHING).add_(now.to(mine.dtype), alpha=1 - _SMOOTHING)

    def _scale(self) -> tuple[Tensor, Tensor]:
        if self.learned:
            assert isinstance(self.start, Tensor)
            assert isinstance(self.zero_point, Tensor)
            return (self.start * torch.exp(self.move)).clamp(max=self.largest), self.zero_point
        assert isinstance(self.low, Tensor)
        assert isinstance(self.high, Tensor)
        most = (1 << self.bits) - 1
        scale = (self.high - self.low) / most
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        zero = torch.round(-self.low / scale).clamp(0, most).to(torch.int32)
        return scale if int(zero) else scale.clamp(max=self.largest), zero


def _largest_scale(bound: float, bits: int) -> float:
    """The largest float32 with which the largest integer stands for ``bound`` or less."""
    if not math.isfinite(bound):
        return math.inf
    most = np.float32((1 << bits) - 1)
    scale = np.float32(bound) / most
    return float(scale if scale * most <= bound else np.nextafter(scale, np.float32(0)))
