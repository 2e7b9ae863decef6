"""EAGLE's cue: eigenvectors of a graph of the positions of an image (docs/methods/eagle.md 4.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from omh_mmseg.models.utils.eigenvectors import largest_eigenvectors
from omh_mmseg.registry import MODELS
from omh_mmseg.utils.checks import POSITIVE, ranges
from omh_mmseg.utils.precision import widened

SIGNS = ('reference', 'canonical')
COLOUR_SCALE = 255.0


def laplacian(code: Tensor, colours: Tensor, sigma: float = 0.1) -> Tensor:
    r"""Normalised Laplacian of the graph of positions.

    .. math::
        A = \max(c c^T, 0) \qquad P_{ij} = \exp(-\|p_i - p_j\|^2 / 2 \sigma^2) \qquad
        W = A / \max A + P / \max P \qquad \mathcal{L} = D^{-1/2} (D - W) D^{-1/2}

    Args:
        code: c, (B, N, D), not normalised.
        colours: p, (B, N, 3).
        sigma: Of the colours.

    Returns:
        (B, N, N).
    """
    affinity = (code @ code.transpose(1, 2)).clamp_min(0)
    squares = colours.square().sum(2)
    distances = squares[:, :, None] + squares[:, None] - 2 * colours @ colours.transpose(1, 2)
    alike = torch.exp(distances.clamp_min(0) / (-2 * sigma**2))
    tiny = torch.finfo(code.dtype).tiny
    weights = affinity / affinity.amax((1, 2), keepdim=True).clamp_min(tiny)
    weights += alike / alike.amax((1, 2), keepdim=True)
    degrees = weights.sum(2)
    roots = degrees.rsqrt()
    return roots[:, :, None] * (torch.diag_embed(degrees) - weights) * roots[:, None]


@MODELS.register_module()
class EigenCue(nn.Module):
    """The first eigenvectors of each image's graph, of codes and colours; without state or gradient.

    Args:
        num_vectors: How many are computed; the first one, which is all but constant, is then dropped.
        sigma: Of the colours, after their division by 255. The reference divides colours that are normalised already,
            which makes all of them alike (docs/methods/eagle.md 9.1).
        sign: Which of two opposite vectors counts: ``'reference'`` what the solver gives, all negated together where
            more than half of the entries are positive; ``'canonical'`` of each the one whose largest entry in size is
            positive, which does not depend on the solver.

    Raises:
        ValueError: On another sign, or fewer than two vectors.

    Source: docs/methods/eagle.md 4.1, 9.3.
    """

    @ranges(num_vectors='[2, 64]', sigma=POSITIVE)
    def __init__(self, num_vectors: int = 4, sigma: float = 0.1, sign: str = 'reference') -> None:
        super().__init__()
        if sign not in SIGNS:
            raise ValueError(f'sign must be one of {SIGNS}; got {sign!r}.')
        self.num_vectors, self.sigma, self.sign = num_vectors, sigma, sign

    @torch.no_grad()
    def forward(self, code: Tensor, colours: Tensor) -> Tensor:
        """Vectors (B, num_vectors - 1, h, w).

        Args:
            code: (B, D, h, w).
            colours: Of the normalised images at the size of the code, (B, 3, h, w).

        Raises:
            ValueError: If the code has fewer positions than vectors are wanted.
        """
        size = code.shape[-2:]
        if size.numel() < self.num_vectors:
            raise ValueError(
                f'{self.num_vectors} eigenvectors need as many positions, and the code has {size.numel()}; use larger '
                'images or lower model.eigen_cue.num_vectors.'
            )
        with torch.autocast(code.device.type, enabled=False):
            # What is not finite is reported with the losses; the solver would fail before.
            rows, points = (widened(maps).nan_to_num().flatten(2).transpose(1, 2) for maps in (code, colours))
            # Affinities are relative: a power of two changes none, and products of large codes stay finite.
            rows = torch.ldexp(rows, -rows.abs().amax((1, 2), keepdim=True).frexp().exponent)
            # The smallest of L are the largest of 1 - L, which are found with relative precision.
            matrices = torch.eye(size.numel(), device=code.device) - laplacian(rows, points / COLOUR_SCALE, self.sigma)
            vectors = self.signed(largest_eigenvectors(matrices, self.num_vectors))
        return vectors[..., 1:].transpose(1, 2).unflatten(2, size)

    def signed(self, vectors: Tensor) -> Tensor:
        """The vectors (B, N, num_vectors) with the signs that count."""
        if self.sign == 'canonical':
            largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
            return vectors * torch.where(largest < 0, -1.0, 1.0)
        positive = (vectors > 0).to(vectors.dtype).mean((1, 2), keepdim=True)
        return torch.where((positive > 0.5) & (positive < 1), -vectors, vectors)


@torch.no_grad()
def small_colours(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images (B, 3, H, W) at the size of a code, (B, 3, h, w), in float32 or wider."""
    return F.interpolate(widened(images), size=size, mode='bilinear', align_corners=False)
