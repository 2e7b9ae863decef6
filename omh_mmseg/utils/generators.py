"""The random generators of torch, numpy and Python, seeded by what is drawn and not by what was drawn before."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

_MAX_SEED = (1 << 63) - 1


def seed_generators(purpose: str, *numbers: int) -> None:
    """Seed the generators of this process, on all devices.

    Args:
        purpose: What is drawn; the same numbers give other draws for another purpose.
        *numbers: At least 0, such as a run's seed, the rank and the step.
    """
    words = _words(purpose, numbers)
    torch.manual_seed(_joined(words))
    _seed_others(words)


def generator_of(purpose: str, *numbers: int) -> torch.Generator:
    """A generator of the CPU of its own, seeded as `seed_generators` does."""
    return torch.Generator().manual_seed(_joined(_words(purpose, numbers)) & _MAX_SEED)


@contextmanager
def seeded(purpose: str, *numbers: int) -> Iterator[None]:
    """Seed the generators of the CPU as `seed_generators` does, and restore them at the end of the context."""
    words = _words(purpose, numbers)
    states = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reach the devices as well, whose state is not restored here.
        torch.default_generator.manual_seed(_joined(words))
        _seed_others(words)
        try:
            yield
        finally:
            np.random.set_state(states[0])
            random.setstate(states[1])


def _words(purpose: str, numbers: tuple[int, ...]) -> np.ndarray:
    return np.random.SeedSequence([zlib.crc32(purpose.encode()), *numbers]).generate_state(4)


def _joined(words: np.ndarray) -> int:
    return int(words[0]) | int(words[1]) << 32


def _seed_others(words: np.ndarray) -> None:
    np.random.seed(words)
    random.seed(words.tobytes())
