"""A step of PriMaPs-EM written out with as few lines as it takes, after docs/methods/primaps.md 3 to 5."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def proposals(features: Tensor, threshold: float, size: tuple[int, int]) -> Tensor:
    """Numbers (H, W) of the masks of one image (C, h, w), without the CRF; a full decomposition each round."""
    rows = features.flatten(1).t()
    units = F.normalize(rows, dim=1)
    free = torch.ones(len(rows), dtype=torch.bool)
    masks = []
    while (~free).sum() / len(rows) < 0.95 and len(masks) < 254:
        chosen = rows[free].double()
        component = torch.linalg.svd(chosen - chosen.mean(0), full_matrices=False)[2][0].to(rows)
        scores = (units @ component) * free
        scores = scores * scores[scores.abs().argmax()].sign()
        similar = (units @ units[scores.argmax()]) * free
        similar[similar < threshold * similar.max()] = 0
        masks.append(similar / similar.max())
        free &= similar <= 0
    stack = torch.stack(masks).view(-1, *features.shape[1:])
    padded = F.pad(stack[:, None], (1, 1, 1, 1), mode='reflect')
    windows = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(-2)  # (n, 1, h, w, 9)
    clean = (10 * windows.median(-1).values[:, 0]).clamp_max(1)
    if not (clean > 0).any():
        return torch.full(size, 255)
    background = (clean[clean > 0].mean() - clean.sum(0)).clamp(0, 1)
    unary = torch.log_softmax(torch.cat([background[None], clean]), 0)
    labels = F.interpolate(unary[None], size=size, mode='bilinear')[0].argmax(0)
    return torch.where(labels == 0, 255, labels)


def logits(directions: Tensor, gains: Tensor, features: Tensor, size: tuple[int, ...]) -> Tensor:
    """l (B, K, H, W): the features are upsampled, as in the reference."""
    rows = gains[:, None] * F.normalize(directions, dim=1)
    return F.conv2d(F.interpolate(features, size=size, mode='bilinear'), rows[:, :, None, None])


def pseudo_labels(scores: Tensor, ids: Tensor) -> Tensor:
    """The most frequent class in each proposal (B, H, W)."""
    classes, targets = scores.argmax(1), torch.full_like(ids, 255)
    for image in range(len(ids)):
        for number in ids[image].unique():
            if number != 255:
                inside = ids[image] == number
                targets[image][inside] = torch.bincount(classes[image][inside], minlength=scores.shape[1]).argmax()
    return targets


def prototype_loss(values: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of logits (B, K, H, W) with the weights of the classes."""
    weights = (1 - values.softmax(1).mean((0, 2, 3)).detach()) ** 2
    return (weights[targets.clamp_max(values.shape[1] - 1)] * F.cross_entropy(
        values, targets, ignore_index=255, reduction='none'
    )).mean()  # fmt: skip


def step(
    features: Tensor, student: Tensor, ids: Tensor, running: tuple[Tensor, Tensor], momentum: tuple[Tensor, Tensor]
) -> Tensor:
    """The loss of the running prototypes."""
    size = ids.shape[-2:]
    with torch.no_grad():
        targets = pseudo_labels(logits(*momentum, features, size), ids)
    return prototype_loss(logits(*running, student, size), targets)
