"""The synthesised tones: their pitch is what they say, their noise is as loud as asked, no tone is in two splits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tinypress.errors import InputError
from tinypress.tasks import tones

SPLITS = ("train", "validation", "test")
QUIET = (90.0, 90.0)


def test_a_frame_is_scaled_as_crepe_wants_it() -> None:
    part = tones.frames_of_tones("test", 5, (0.0, 40.0))
    assert part.inputs[0].shape == (20, 1024)
    assert part.inputs[0].dtype == torch.float32
    assert part.inputs[0].mean(1).abs().max() < 1e-6
    assert (part.inputs[0].std(1, unbiased=False) - 1).abs().max() < 1e-5
    assert part.groups is not None
    assert part.groups.tolist() == [clip for clip in range(5) for _ in range(4)]


def left_over(frame: np.ndarray, hertz: float) -> float:
    """The share of a frame's power that no sum of harmonics of ``hertz`` can explain."""
    seconds = np.arange(len(frame)) / tones.RATE_HZ
    numbers = np.arange(1, min(24, int(7500 / hertz)) + 1)
    angles = 2 * np.pi * hertz * seconds[:, None] * numbers
    waves = np.hstack([np.ones((len(frame), 1)), np.sin(angles), np.cos(angles)])
    rest = frame - waves @ np.linalg.lstsq(waves, frame, rcond=None)[0]
    return float((rest**2).mean())


def test_the_target_is_the_pitch_of_the_sound() -> None:
    part = tones.frames_of_tones("validation", 12, QUIET).take(slice(0, None, 5))
    shifts = range(-60, 61, 20)
    for frame, cents in zip(part.inputs[0].double().numpy(), part.targets.double().tolist(), strict=True):
        rests = [left_over(frame, 10 * 2 ** ((cents + shift) / 1200)) for shift in shifts]
        assert rests[3] < 0.02
        assert rests[3] == min(rests)


def test_the_noise_is_as_loud_as_asked() -> None:
    for level in (0.0, 10.0):
        clean, noisy = (tones.frames_of_tones("test", 40, (db, db)).inputs[0] for db in (90.0, level))
        # of a scaled frame of tone and noise the tone is the share that the clean frame explains
        share = (clean * noisy).mean(1)
        found = 10 * torch.log10(share.square() / (1 - share.square()))
        assert abs(float(found.median()) - level) < 0.5


def test_no_tone_is_in_two_splits() -> None:
    cells: list[set[int]] = []
    for name in SPLITS:
        part = tones.frames_of_tones(name, 100, QUIET)
        middles = part.targets.reshape(-1, 4).double().mean(1)
        low = tones.to_cents(tones.LOWEST_HZ)
        assert middles.min() >= low
        assert middles.max() <= tones.to_cents(tones.HIGHEST_HZ)
        cells.append({float(m) for m in middles})
    assert not cells[0] & cells[1]
    assert not cells[1] & cells[2]
    assert not cells[0] & cells[2]
    kinds = [kind for name in SPLITS for kind in tones._CELLS[name][0]]
    assert sorted(kinds) == [0, 1, 2, 3, 4]
    assert len({tones._CELLS[name][1] for name in SPLITS}) == 3


def test_more_clips_begin_with_the_same() -> None:
    few, many = (tones.frames_of_tones("train", clips, (0.0, 40.0)) for clips in (3, 6))
    assert torch.equal(few.inputs[0], many.inputs[0][:12])
    assert torch.equal(few.targets, many.targets[:12])


@pytest.mark.parametrize("noise", [(10.0, 0.0), (float("nan"), 1.0), (0.0, float("inf"))])
def test_noise_that_is_no_range(noise: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="the noise is no range"):
        tones.frames_of_tones("test", 1, noise)


def test_no_clip() -> None:
    with pytest.raises(InputError, match="there is no clip"):
        tones.frames_of_tones("test", 0, QUIET)
