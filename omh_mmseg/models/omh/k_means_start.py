"""Where the centres of OMH's levels start, and start again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmengine import dist
from torch import Tensor, nn

from omh_mmseg.models.utils.k_means import fit_centres

POOL_STEPS = 8
POOL_SIZE = 4096


class KMeansStart(nn.Module):
    """Puts the centres of all levels where k-means finds the clusters of the code.

    Positions of the last `POOL_STEPS` training steps are kept in a pool, `POOL_SIZE` of all processes together, as the
    images of one batch show few of the classes. The levels then start from k-means of their own on the same positions.
    The pool is the same in all processes, so that a resumed run finds it whole in its checkpoint.

    Nothing is drawn from the generators of the run: with the same seed a host learns from the same random numbers with
    and without it.

    Args:
        channels: D of the code.
        iteration: Training step at whose beginning the centres are replaced; 0 takes the first batch alone.
    """

    pool: Tensor

    def __init__(self, channels: int, iteration: int) -> None:
        super().__init__()
        self.begin_at(iteration)
        # Of one shape whatever the iteration: a checkpoint fits a config that starts at another one.
        self.register_buffer('pool', torch.zeros(POOL_STEPS, POOL_SIZE // POOL_STEPS, channels))

    def begin_at(self, iteration: int) -> None:
        """Replace the centres at the beginning of this training step."""
        self.iteration = iteration
        self.steps = min(POOL_STEPS, iteration + 1)

    @torch.no_grad()
    def step(self, positions: Tensor, centres: Sequence[Tensor], iteration: int) -> None:
        """Collect positions of a training step, and replace the centres in place when their time has come.

        Args:
            positions: (P, D), of unit length.
            centres: (K_l, D) of each level.
            iteration: Number of the step.

        Raises:
            FloatingPointError: If the positions that k-means starts from are not finite.
        """
        if not 0 <= self.iteration - iteration < self.steps:
            return
        # Evenly spaced, and shifted from step to step: a stride that divides the width would keep to a few columns.
        turn = iteration - self.iteration + self.steps - 1
        slots = self.pool[turn * POOL_STEPS // self.steps : (turn + 1) * POOL_STEPS // self.steps]
        total = slots.shape[0] * slots.shape[1]
        count = -(-total // dist.get_world_size())
        places = (torch.arange(count, device=positions.device) + turn / self.steps) * (len(positions) / count)
        chosen = torch.cat(dist.all_gather(positions[places.long().clamp(max=len(positions) - 1)]))
        slots.copy_(chosen[:total].view_as(slots))
        if iteration < self.iteration:
            return
        collected = self.pool.flatten(0, 1).cpu().numpy()
        if not np.isfinite(collected).all():
            raise FloatingPointError(
                f'The code is not finite in the steps before {iteration}, where centres start from k-means. '
                'Lower the learning rate, or look for the first loss that is not finite in the log.'
            )
        for seed, level in enumerate(centres):
            # Centres turn the faster, the shorter they are: the optimiser's steps have a length of their own.
            length = level.norm(dim=1).mean()
            means = fit_centres(collected, len(level), seed).to(level)
            level.copy_(length * F.normalize(means, dim=1))
            dist.broadcast(level)
