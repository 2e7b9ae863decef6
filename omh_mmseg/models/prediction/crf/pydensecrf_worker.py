"""Mean field by pydensecrf in a process of its own; needs numpy and pydensecrf alone.

Started as a script by the worker pool beside it: it reads jobs from its input, writes results to its output, and ends
when its input does. Nothing of the parent is inherited, so that no state of an accelerator is.
"""

from __future__ import annotations

import os
import pickle
import signal
import sys
from typing import Any

import numpy as np


def mean_field(image: np.ndarray, unary: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """Marginals (K, H, W) of float32.

    Args:
        image: BGR uint8 (H, W, 3).
        unary: Energies, float32 (K, H, W).
        settings: The numbers of ``DenseCRF``.
    """
    from pydensecrf import densecrf

    clusters, height, width = unary.shape
    model = densecrf.DenseCRF2D(width, height, clusters)
    model.setUnaryEnergy(np.ascontiguousarray(unary.reshape(clusters, -1), dtype=np.float32))
    model.addPairwiseGaussian(sxy=settings['gaussian_sxy'], compat=settings['gaussian_compat'])
    model.addPairwiseBilateral(
        sxy=settings['bilateral_sxy'],
        srgb=settings['bilateral_srgb'],
        rgbim=np.ascontiguousarray(image),
        compat=settings['bilateral_compat'],
    )
    return np.array(model.inference(settings['iterations']), dtype=np.float32).reshape(clusters, height, width)


def serve() -> None:
    """Answer jobs until the input ends."""
    # Ctrl-C reaches the parent, too, which then closes this input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(sys.stdout.fileno()), 'wb')
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    while True:
        try:
            job = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer: Any = mean_field(*job)
        except Exception as error:  # noqa: BLE001  whatever it is, the parent reports it
            answer = f'{type(error).__name__}: {error}'
        pickle.dump(answer, answers, protocol=5)
        answers.flush()


if __name__ == '__main__':
    serve()
