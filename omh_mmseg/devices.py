"""Where to compute when nobody says."""

from __future__ import annotations

import torch


def default_device() -> str:
    """Give ``'cuda'`` where there is a GPU of CUDA, else ``'cpu'``.

    mmengine's ``get_device`` would take Apple's ``mps``, too, which has no float64, the default precision of the
    transport's solver.
    """
    return 'cuda' if torch.cuda.is_available() else 'cpu'
