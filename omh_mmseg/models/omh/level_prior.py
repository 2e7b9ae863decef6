"""What a level of clusters expects of the next finer one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from omh_mmseg.transport.matching import condition_plan

PRIOR_FLOOR = 1e-6
"""Of the probabilities: a sparse plan has zeros, and a position that one level misplaces may still go elsewhere."""


@torch.no_grad()
def level_priors(activations: Sequence[Tensor], plans: Sequence[Tensor], scale: float) -> list[Tensor]:
    r"""Logarithm of how probable each cluster of a position is, given its activations at the next coarser level.

    .. math:: o^{l+1}_{pk} = \text{scale} \cdot \log \sum_j a^l_{pj} \frac{T^l_{jk}}{\sum_{k'} T^l_{jk'}}

    Added to the cosines of level l + 1 with ``scale`` = tau, the largest sum is the most probable cluster (maximum a
    posteriori) of a mixture whose likelihoods are ``exp(cosine / tau)``.

    Args:
        activations: a^l of all levels, coarsest first, (P, K_l). Below another one, the finest may be left out.
        plans: T^l of all level pairs, (K_l, K_{l+1}).
        scale: Factor, at least 0.

    Returns:
        Per level (P, K_l); 0 for the coarsest, which has nothing above it.
    """
    priors = [torch.zeros_like(activations[0])]
    for coarse, plan in zip(activations, plans):
        expected = coarse @ condition_plan(plan).to(coarse)
        priors.append(scale * expected.clamp_min(PRIOR_FLOOR).log())
    return priors
