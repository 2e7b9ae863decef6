"""The device to compute on where the user names none, and how many processors there are."""

from __future__ import annotations

import os

import torch


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def default_device() -> str:
    """Give ``'cuda'`` where there is a GPU of CUDA, else ``'cpu'``.

    mmengine's ``get_device`` would take Apple's ``mps``, too, which has no float64, the default precision of the
    transport's solver.
    """
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def check_device(device: str | torch.device) -> None:
    """Raise ValueError if there is no such device, or no such kind of device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f'device {str(device)!r} is not available here ({reason}); use cpu') from error
