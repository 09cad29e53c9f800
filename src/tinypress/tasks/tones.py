"""Harmonic tones in white noise, from a seed, cut into frames: sounds whose pitch is known exactly.

A clip is one tone of 0.1 s with a pitch that glides a little. Which pitches a split may have is fixed: the range
from 60 to 1500 Hz is divided into cells of 5 cents that go in turn to the splits, so that no tone is in two.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from tinypress.errors import InputError
from tinypress.task import Split

RATE_HZ = 16_000
FRAME = 1024
LOWEST_HZ, HIGHEST_HZ = 60.0, 1500.0
FRAMES_PER_CLIP = 4
_HOP = 160  # 10 ms from one frame to the next
_SAMPLES = FRAME + (FRAMES_PER_CLIP - 1) * _HOP
_CELL_CENTS = 5.0
_GLIDE_CENTS = 10.0  # the most that the pitch moves over a clip, up or down
# of every five cells: which go to a split, and the seed that is its own
_CELLS = {"train": ((0, 2, 4), 11), "validation": ((1,), 12), "test": ((3,), 13)}


def to_cents(hertz: float) -> float:
    """Cents over 10 Hz."""
    return 1200 * math.log2(hertz / 10)


def frames_of_tones(
    split: Literal["train", "validation", "test"], clips: int, snr_db: tuple[float, float]
) -> Split:
    """``clips`` tones of the split, four frames each: inputs [4 clips, 1024], targets in cents [4 clips].

    The target is the pitch in the middle of the frame. A frame is shifted to mean 0 and scaled to standard deviation
    1, as CREPE wants it. ``snr_db`` is the least and the most power of the tone over the noise, in decibels, drawn
    evenly for each clip. Another number of clips begins with the same tones.

    Raises:
        InputError: no clip, or the range is not two finite numbers in order.
    """
    call = f"frames_of_tones({split!r}, clips={clips}, snr_db={snr_db})"
    if clips < 1:
        raise InputError(call, "there is no clip", "Give at least 1")
    least, most = snr_db
    if not (math.isfinite(least) and math.isfinite(most) and least <= most):
        raise InputError(
            call, "the noise is no range", "Give the least and the most decibels, such as (0, 40)"
        )
    frames, targets = [], []
    cells, seed = _CELLS[split]
    for number in range(clips):
        draw = np.random.default_rng((seed, number))
        sound, cents = _tone(draw, cells)
        level = draw.uniform(least, most)
        noise = draw.standard_normal(_SAMPLES) * math.sqrt(np.mean(sound**2) / 10 ** (level / 10))
        for start in range(0, _SAMPLES - FRAME + 1, _HOP):
            part = (sound + noise)[start : start + FRAME]
            frames.append((part - part.mean()) / part.std())
            targets.append(cents[start + FRAME // 2])
    return Split(
        (torch.from_numpy(np.stack(frames).astype(np.float32)),),
        torch.from_numpy(np.array(targets, dtype=np.float32)),
        torch.arange(clips).repeat_interleave(FRAMES_PER_CLIP),
    )


def _tone(
    draw: np.random.Generator, cells: tuple[int, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One clip: samples [T] and the pitch in cents at each."""
    low, high = to_cents(LOWEST_HZ) + _GLIDE_CENTS, to_cents(HIGHEST_HZ) - _GLIDE_CENTS
    fives = int((high - low) // (5 * _CELL_CENTS))
    cell = 5 * draw.integers(fives) + draw.choice(cells)
    middle = low + _CELL_CENTS * (cell + draw.uniform())
    place = np.linspace(-0.5, 0.5, _SAMPLES)
    cents = middle + draw.uniform(-_GLIDE_CENTS, _GLIDE_CENTS) * place
    hertz = 10 * 2 ** (cents / 1200)
    turns = np.cumsum(hertz) / RATE_HZ
    most = int(0.45 * RATE_HZ / hertz.max())  # harmonics below the highest frequency that can be told
    count = int(draw.integers(1, min(most, 24) + 1))
    fall = draw.uniform(0.3, 2.0)  # loudness of harmonic h is h to the power of minus this, give or take
    sound = np.zeros(_SAMPLES)
    for harmonic in range(1, count + 1):
        loud = harmonic**-fall * draw.uniform(0.3, 1.0)
        sound += loud * np.sin(2 * np.pi * (harmonic * turns + draw.uniform()))
    return sound, cents
