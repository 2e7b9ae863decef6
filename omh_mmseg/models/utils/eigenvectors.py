"""The few eigenvectors that cues and proposals need of a symmetric matrix."""

from __future__ import annotations

import inspect

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackError, eigsh
from torch import Tensor

TOLERANCE = 1e-10
ROUNDS = 50
# Where newer versions of scipy would otherwise draw a new direction from the system's randomness.
FIXED = dict(rng=0) if 'rng' in inspect.signature(eigsh).parameters else {}


def largest_eigenvectors(matrices: Tensor, count: int) -> Tensor:
    """Eigenvectors (B, N, count) of the largest eigenvalues, descending, of symmetric matrices (B, N, N).

    On a processor ARPACK finds the few that are wanted, in float64, and where it does not converge, LAPACK; elsewhere
    all are computed at once. The figures are in docs/benchmarks.md.
    """
    if matrices.device.type != 'cpu':
        return torch.linalg.eigh(matrices).eigenvectors[..., -count:].flip(-1)
    found = [_of_one(one.double().numpy(), count) for one in matrices]
    return torch.from_numpy(np.stack(found)).to(matrices.dtype)


def _of_one(matrix: np.ndarray, count: int) -> np.ndarray:
    size = len(matrix)
    if size > 4 * count:
        # A first direction that no symmetry of an image is orthogonal to.
        start = np.random.default_rng(0).standard_normal(size)
        options = dict(v0=start, tol=TOLERANCE, maxiter=ROUNDS, **FIXED)
        try:
            values, vectors = eigsh(matrix, count, which='LA', **options)
            return vectors[:, np.argsort(-values)]
        except ArpackError:
            pass
    return eigh(matrix, subset_by_index=(size - count, size - 1))[1][:, ::-1]
