"""STEGO derived anew from docs/methods, in one straight line of plain torch and none of the package's functions.

The examiner of the STEGO host. Even sampling, resizing, normalisation, cross-entropy and Adam are written out, so that
an error shared with a library call cannot hide. Frozen features and every random draw come from outside: two
implementations can differ in how they draw, and must agree on what they do with a draw.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

Vectors = dict[str, Tensor]
Masks = tuple[Tensor, Tensor, Tensor]  # each (B, C) of 0 or 1 / (1 - p): linear branch, non-linear branch, features


@dataclass(frozen=True)
class Settings:
    """The numbers of docs/methods/stego.md 4.1 to 4.3 that one experiment sets."""

    num_classes: int
    w_self: float
    w_knn: float
    w_rand: float
    b_self: float
    b_knn: float
    b_rand: float
    pointwise: bool = True
    zero_clamp: bool = True
    stabilize: bool = False


@dataclass(frozen=True)
class Draws:
    """All randomness of one step.

    Attributes:
        anchor: Dropout factors of the three uses of the anchors' features.
        neighbour: The same for the neighbours.
        coords1: Positions in the anchors, ``(B, S, S, 2)`` in [-1, 1], last axis (x, y).
        coords2: Positions in the neighbours and in the negatives, ``(B, S, S, 2)``.
        permutations: One uniform permutation of ``range(B)`` per negative draw, fixed points included.
    """

    anchor: Masks
    neighbour: Masks
    coords1: Tensor
    coords2: Tensor
    permutations: list[Tensor]


def unit(vectors: Tensor, eps: float) -> Tensor:
    """``n2`` of docs/methods/features.md 0 along axis 1."""
    length = vectors.pow(2).sum(1, keepdim=True).sqrt()
    return vectors / length.clamp(min=eps)


def conv1x1(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``(B, in, H, W)`` to ``(B, out, H, W)``; ``weight`` may carry the two trailing axes of a convolution."""
    matrix = weight.reshape(weight.shape[0], -1)
    return torch.einsum('oi,bihw->bohw', matrix, maps) + bias[None, :, None, None]


def resize_matrix(length: int, target: int, like: Tensor) -> Tensor:
    """Bilinear weights ``(target, length)`` of one axis, pixel centres at half integers (align_corners False)."""
    centre = ((torch.arange(target, dtype=like.dtype) + 0.5) * length / target - 0.5).clamp(0, length - 1)
    below = centre.floor().long()
    above = (below + 1).clamp(max=length - 1)
    share = centre - below
    matrix = like.new_zeros(target, length)
    rows = torch.arange(target)
    matrix[rows, below] += 1 - share
    matrix[rows, above] += share
    return matrix


def upsample(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize of ``(B, C, h, w)`` to ``size``."""
    rows = resize_matrix(maps.shape[2], size[0], maps)
    columns = resize_matrix(maps.shape[3], size[1], maps)
    return torch.einsum('Yy,bcyx,Xx->bcYX', rows, maps, columns)


def sample(maps: Tensor, coords: Tensor) -> Tensor:
    """docs/methods/stego.md 3A.2: bilinear look-up of ``(B, C, H, W)`` at ``(B, S, S, 2)``, corners aligned, border
    padding.

    The two S axes are swapped. Returns ``(B, C, S, S)``.
    """
    height, width = maps.shape[2:]
    coords = coords.transpose(1, 2)
    x = ((coords[..., 0] + 1) / 2 * (width - 1)).clamp(0, width - 1)
    y = ((coords[..., 1] + 1) / 2 * (height - 1)).clamp(0, height - 1)
    left, top = x.floor().long(), y.floor().long()
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    along_x, along_y = (x - left)[:, None], (y - top)[:, None]
    image = torch.arange(maps.shape[0])[:, None, None]

    def pick(row: Tensor, column: Tensor) -> Tensor:
        return maps[image, :, row, column].permute(0, 3, 1, 2)

    upper = pick(top, left) * (1 - along_x) + pick(top, right) * along_x
    lower = pick(bottom, left) * (1 - along_x) + pick(bottom, right) * along_x
    return upper * (1 - along_y) + lower * along_y


def without_fixed_points(permutation: Tensor) -> Tensor:
    """docs/methods/stego.md 3A.4: a fixed point i becomes i + 1, then everything modulo B."""
    size = len(permutation)
    moved = [value + 1 if value == place else value for place, value in enumerate(permutation.tolist())]
    return torch.tensor([value % size for value in moved])


def correspondence(f1: Tensor, f2: Tensor, c1: Tensor, c2: Tensor, shift: float, settings: Settings) -> Tensor:
    """``h`` of docs/methods/stego.md 3A.3 on sampled features and codes ``(B, channels, S, S)``; the mean of its map.
    """
    with torch.no_grad():
        similarity = torch.einsum('nchw,ncij->nhwij', unit(f1, 1e-10), unit(f2, 1e-10))
        if settings.pointwise:
            mean = similarity.mean()
            similarity = similarity - similarity.mean(dim=(3, 4), keepdim=True)
            similarity = similarity - similarity.mean() + mean
    agreement = torch.einsum('nchw,ncij->nhwij', unit(c1, 1e-10), unit(c2, 1e-10))
    agreement = agreement.clamp(min=0.0 if settings.zero_clamp else -9999.0)
    if settings.stabilize:
        agreement = agreement.clamp(max=0.8)
    return (-agreement * (similarity - shift)).mean()


def cluster_scores(code: Tensor, centres: Tensor) -> Tensor:
    """Cosine of every position with every centre, ``(B, K, H, W)``."""
    return torch.einsum('kd,bdhw->bkhw', unit(centres, 1e-12), unit(code, 1e-12))


@dataclass
class StraightLineStego:
    """Weights, Adam's memory and the one training step.

    Attributes:
        settings: Numbers of the experiment.
        head: ``linear.weight``, ``linear.bias``, ``hidden.weight``, ``hidden.bias``, ``out.weight``, ``out.bias``:
            branch L and the two layers of branch N (docs/methods/features.md 2.1). Without the last four only L exists.
        linear_probe: ``weight`` and ``bias``.
        cluster_probe: ``centres`` ``(K, D)``.
    """

    settings: Settings
    head: Vectors
    linear_probe: Vectors
    cluster_probe: Vectors
    steps: int = 0
    memory: dict[str, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def code(self, linear_input: Tensor, nonlinear_input: Tensor) -> Tensor:
        """docs/methods/features.md 2.1: the sum of the two branches."""
        head = self.head
        code = conv1x1(linear_input, head['linear.weight'], head['linear.bias'])
        if 'hidden.weight' in head:
            hidden = conv1x1(nonlinear_input, head['hidden.weight'], head['hidden.bias']).clamp(min=0)
            code = code + conv1x1(hidden, head['out.weight'], head['out.bias'])
        return code

    def correlation(self, f: Tensor, f_pos: Tensor, c: Tensor, c_pos: Tensor, draws: Draws) -> dict[str, Tensor]:
        """docs/methods/stego.md 3A.4: the weighted terms by name."""
        settings = self.settings
        fs, cs = sample(f, draws.coords1), sample(c, draws.coords1)
        f_pos_s, c_pos_s = sample(f_pos, draws.coords2), sample(c_pos, draws.coords2)
        negatives = []
        for permutation in draws.permutations:
            partner = without_fixed_points(permutation)
            f_neg, c_neg = sample(f[partner], draws.coords2), sample(c[partner], draws.coords2)
            negatives.append(correspondence(fs, f_neg, cs, c_neg, settings.b_rand, settings))
        return {
            'self': settings.w_self * correspondence(fs, fs, cs, cs, settings.b_self, settings),
            'knn': settings.w_knn * correspondence(fs, f_pos_s, cs, c_pos_s, settings.b_knn, settings),
            'rand': settings.w_rand * sum(negatives) / len(negatives),
        }

    def linear_loss(self, code: Tensor, labels: Tensor) -> Tensor:
        """docs/methods/stego.md 3A.5: logits upsampled to the labels ``(B, H, W)``, mean over pixels with 0 <= label <
        K.
        """
        logits = conv1x1(code.detach(), self.linear_probe['weight'], self.linear_probe['bias'])
        logits = upsample(logits, tuple(labels.shape[-2:]))
        log_prob = logits - torch.logsumexp(logits, dim=1, keepdim=True)
        known = (labels >= 0) & (labels < self.settings.num_classes)
        return -log_prob.permute(0, 2, 3, 1)[known].gather(1, labels[known][:, None]).mean()

    def cluster_loss(self, code: Tensor) -> Tensor:
        """docs/methods/stego.md 3A.5, alpha None: minus the mean cosine with the nearest centre."""
        scores = cluster_scores(code.detach(), self.cluster_probe['centres'])
        return -scores.max(dim=1).values.mean()

    def train_step(self, feat: Tensor, feat_pos: Tensor, labels: Tensor, draws: Draws) -> dict[str, float]:
        """One batch: forward, one backward of the sum, three Adam steps (docs/methods/stego.md 3A.6).

        Args:
            feat: Frozen features of the anchors, ``(B, C, h, w)``.
            feat_pos: Frozen features of their neighbours.
            labels: ``(B, H, W)``, anything outside ``[0, K)`` is ignored.
            draws: The step's randomness.

        Returns:
            The losses before the update: ``self``, ``knn``, ``rand``, ``linear``, ``cluster``.
        """
        parameters = {
            f'{part}.{name}': value.requires_grad_()
            for part, values in (('head', self.head), ('linear', self.linear_probe), ('cluster', self.cluster_probe))
            for name, value in values.items()
        }
        first, second, third = (mask[:, :, None, None] for mask in draws.anchor)
        c, f = self.code(feat * first, feat * second), feat * third
        first, second, third = (mask[:, :, None, None] for mask in draws.neighbour)
        c_pos, f_pos = self.code(feat_pos * first, feat_pos * second), feat_pos * third

        losses = self.correlation(f, f_pos, c, c_pos, draws)
        losses['linear'] = self.linear_loss(c, labels)
        losses['cluster'] = self.cluster_loss(c)
        gradients = torch.autograd.grad(sum(losses.values()), list(parameters.values()))

        self.steps += 1
        with torch.no_grad():
            for (name, value), gradient in zip(parameters.items(), gradients, strict=True):
                self.adam(name, value, gradient, 5e-4 if name.startswith('head.') else 5e-3)
        return {name: loss.item() for name, loss in losses.items()}

    def adam(self, name: str, value: Tensor, gradient: Tensor, lr: float) -> None:
        """Adam with its default betas and epsilon, no decay; changes ``value`` in place."""
        first, second = self.memory.get(name, (torch.zeros_like(value), torch.zeros_like(value)))
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        self.memory[name] = first, second
        mean, power = first / (1 - 0.9**self.steps), second / (1 - 0.999**self.steps)
        value -= lr * mean / (power.sqrt() + 1e-8)

    @torch.no_grad()
    def scores(self, feat: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """docs/methods/evaluation.md 6.1: the code is upsampled to ``size``, then probed; the class is the arg-max.

        Returns:
            Logits of the linear probe and cosines of the cluster probe, each ``(B, K, H, W)``.
        """
        code = upsample(self.code(feat, feat), size)
        linear = conv1x1(code, self.linear_probe['weight'], self.linear_probe['bias'])
        return linear, cluster_scores(code, self.cluster_probe['centres'])


def normalised(images: Tensor) -> Tensor:
    """docs/methods/features.md 1.7 for 8-bit images ``(B, 3, H, W)`` that are stored blue first, as mmcv reads them."""
    rgb = images.flip(1).double() / 255
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=torch.float64)[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225], dtype=torch.float64)[:, None, None]
    return (rgb - mean) / std
