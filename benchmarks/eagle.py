"""Time of EAGLE's eigenvectors by several solvers, and of its training step beside a straight line of its formulas.

    python benchmarks/eagle.py eigen    # the eigenvectors that are needed, of one image
    python benchmarks/eagle.py step     # losses of a batch of frozen features, forward and backward

``error`` is the largest of 1 minus the size of a vector's product with that of float64's decomposition. *Structured*
codes are of eight objects, others are noise, whose eigenvalues crowd. The straight line makes all pairs of positions,
every eigenvector, and all distances of the batch.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from common import Benchmark, Prepared, Question, Rows, Verdict, interleave, peak_rise
from torch import Tensor

from omh_mmseg.models.losses import AdaptiveCorrespondenceLoss, EigenCue, ObjectContrastLoss
from omh_mmseg.models.losses.eigen_cue import laplacian
from omh_mmseg.models.losses.object_contrast_loss import patch_weights
from omh_mmseg.models.losses.stego_correlation_loss import sample_positions
from omh_mmseg.models.utils.eigenvectors import largest_eigenvectors

COUNT, OBJECTS, CHANNELS, CODE, LABELS = 4, 8, 1152, 512, 32
SOLVERS: dict[str, Callable[[Tensor], Any]] = {
    'ours': lambda matrix: largest_eigenvectors(torch.eye(len(matrix)) - matrix[None], COUNT)[0],
    'torch.linalg.eigh': lambda matrix: torch.linalg.eigh(matrix).eigenvectors[:, :COUNT],
    'scipy.linalg.eigh, subset': lambda matrix: scipy.linalg.eigh(matrix.numpy(), subset_by_index=(0, COUNT - 1))[1],
    'torch.lobpcg': lambda matrix: torch.lobpcg(matrix, COUNT, largest=False, niter=200, tol=1e-6)[1],
}


def graph(positions: int, structured: bool) -> Tensor:
    """Laplacian (N, N) of an image."""
    generator = torch.Generator().manual_seed(0)
    code = torch.randn(positions, CODE, generator=generator)
    if structured:
        objects = torch.randn(OBJECTS, CODE, generator=generator)
        code = 0.5 * code + objects[torch.arange(positions) * OBJECTS // positions]
    return laplacian(code[None], torch.randn(1, positions, 3, generator=generator) / 255)[0]


def eigen(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """All solvers on the graph of an image."""
    rows: Rows = []
    for positions, structured in itertools.product(args.positions, (True, False)):
        matrix = graph(positions, structured)
        exact = torch.linalg.eigh(matrix.double()).eigenvectors[:, :COUNT]

        def prepare(solver: str, matrix: Tensor = matrix) -> Prepared:
            return lambda: lambda: SOLVERS[solver](matrix)

        taken = interleave({name: prepare(name) for name in args.solvers}, args.repeats, progress=f'{positions}')
        for name, sample in taken.items():
            found = torch.as_tensor(np.asarray(SOLVERS[name](matrix))).double()
            error = float((1 - (found * exact).sum(0).abs()).max())
            kind = 'structured' if structured else 'noise'
            rows.append(dict(positions=positions, code=kind, solver=name, **sample.times(), error=f'{error:.1e}'))
    worst = max(float(row['error']) for row in rows if row['solver'] == 'ours')
    return rows, [Verdict('our eigenvectors are those of float64 to 1e-5', f'{worst:.1e}', worst < 1e-5)]


def inputs_of(batch: int, side: int) -> list[Tensor]:
    """Features and code of x, x+ and x~ (3 B, ...), the projected code, colours, directions, positions, pairings."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    coordinates = torch.rand(3, batch, 11, 11, 2, generator=generator) * 2 - 1
    perms = torch.stack([torch.arange(batch).roll(shift % (batch - 1) + 1) for shift in range(5)])
    code, z = random(3 * batch, CODE, side, side), F.normalize(random(2 * batch * side**2, CODE), dim=1)
    return [
        random(3 * batch, CHANNELS, side, side), code.requires_grad_(), z.requires_grad_(),
        random(batch, 3, side, side), F.normalize(random(LABELS, COUNT - 1), dim=1), coordinates, perms,
    ]  # fmt: skip


def library(
    features: Tensor, codes: Tensor, z: Tensor, colours: Tensor, phi: Tensor, xy: Tensor, perms: Tensor
) -> Tensor:
    """The parts of the package."""
    f, c = features.chunk(3), codes.chunk(3)
    total = torch.stack(list(AdaptiveCorrespondenceLoss(0.25, 0.63)(f, c, tuple(xy), perms).values())).sum()
    loss, (one, two) = ObjectContrastLoss(), z.chunk(2)
    for rows, other, code, seen in ((one, two, c[1], f[1]), (two, one, c[2], f[2])):
        labels = F.conv2d(EigenCue()(code, colours), phi[:, :, None, None]).argmax(1).flatten()
        total = total + loss(rows, other, labels, patch_weights(seen), LABELS)
    return total


def straight_line(
    features: Tensor, codes: Tensor, z: Tensor, colours: Tensor, phi: Tensor, xy: Tensor, perms: Tensor
) -> Tensor:
    """docs/methods/eagle.md 3 and 4 line by line."""
    (f, f_same, f_view), (c, c_same, c_view) = features.chunk(3), codes.chunk(3)

    def term(f1: Tensor, f2: Tensor, c1: Tensor, c2: Tensor, positive: bool) -> Tensor:
        big_f, big_c = (
            torch.einsum('ncs,nct->nst', *(F.normalize(x.flatten(2), dim=1, eps=1e-10) for x in pair))
            for pair in ((f1, f2), (c1, c2))
        )
        mean = big_f.mean()
        big_f = big_f - big_f.mean(2, keepdim=True)
        big_f = big_f - big_f.mean() + mean
        b = (big_f.mean() - big_c.mean()).abs() if positive else 3.5 * (big_f.mean() + big_c.mean())
        return -(big_c.clamp(0, 0.8) * (big_f - b)).mean()

    f1, c1, f2, c2 = (sample_positions(x, xy[n]) for x, n in ((f, 0), (c, 0), (f_same, 1), (c_same, 1)))
    total = 0.25 * term(sample_positions(f_view, xy[2]), f2, sample_positions(c_view, xy[2]), c2, True)
    for perm in perms:
        drawn = (sample_positions(x[perm], xy[1]) for x in (f, c))
        other_f, other_c = drawn
        total = total + 0.63 / len(perms) * term(f1, other_f, c1, other_c, False)
    one, two = z.chunk(2)
    for rows, other, code, seen in ((one, two, c_same, f_same), (two, one, c_view, f_view)):
        with torch.no_grad():
            p = colours.flatten(2).transpose(1, 2) / 255
            a = torch.einsum('ncp,ncq->npq', code.flatten(2), code.flatten(2)).clamp_min(0)
            w = a / a.amax((1, 2), keepdim=True)
            near = torch.exp(-torch.cdist(p, p).square() / 0.02)
            w = w + near / near.amax((1, 2), keepdim=True)
            d = w.sum(2)
            matrices = (torch.diag_embed(d) - w) / (d[:, :, None] * d[:, None]).sqrt()
            v = torch.linalg.eigh(matrices).eigenvectors[..., :COUNT]
            share = (v > 0).double().mean((1, 2))
            v = torch.where(((share > 0.5) & (share < 1))[:, None, None], -v, v)[..., 1:]
            labels = (v @ phi.t()).argmax(2).flatten()
            gram = torch.einsum('ncp,ncq->npq', seen.flatten(2), seen.flatten(2))
            weights = (gram / gram.norm(dim=1, keepdim=True)).mean(2).flatten()
            # By the product form two rows that are alone with each other would not tie.
            exact = torch.cdist(rows, rows, compute_mode='donot_use_mm_for_euclid_dist')
            costs = exact * (labels[:, None] == labels)
            present = labels.unique()
            medoids = torch.stack([costs.sum(1).masked_fill(labels != label, torch.inf).argmin() for label in present])
            targets = torch.searchsorted(present, labels)
        entropies = (F.cross_entropy(x @ rows[medoids].t() / 0.07, targets, reduction='none') for x in (rows, other))
        total = total + 0.85 / 2 * sum(g * (weights * ce).mean() for g, ce in zip((0.3, 0.7), entropies))
    return total


FORMS = {'library': library, 'straight line': straight_line}


def step(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """Both forms, forward and backward, on the same batch."""
    rows: Rows = []
    for batch, side in itertools.product(args.batch_sizes, args.sides):
        inputs = inputs_of(batch, side)

        def prepare(form: str, inputs: list[Tensor] = inputs) -> Prepared:
            return lambda: lambda: FORMS[form](*inputs).backward()

        taken = interleave({name: prepare(name) for name in FORMS}, args.repeats, progress=f'batch {batch}')
        for name, sample in taken.items():
            risen = peak_rise(prepare(name)()) / 2**20
            rows.append(dict(batch=batch, side=side, form=name, **sample.times(), rss_mib=round(risen, 1)))
    ratios = [plain['cpu_ms'] / own['cpu_ms'] for own, plain in zip(rows[::2], rows[1::2])]
    said = f'{min(ratios):.1f} to {max(ratios):.1f} times as fast'
    return rows, [Verdict('the step is no slower than its straight line', said, min(ratios) >= 1)]


main = Benchmark(
    __file__,
    __doc__,
    dict(
        eigen=Question(
            eigen,
            'Eigenvectors of the graph of an image',
            repeats=5,
            options=dict(positions=[256, 784], solvers=list(SOLVERS)),
            quick=dict(repeats=2),
            choices=dict(solvers=list(SOLVERS)),
        ),
        step=Question(
            step,
            "EAGLE's losses: forward and backward",
            repeats=3,
            options=dict(batch_sizes=[4], sides=[16, 28]),
            quick=dict(repeats=1, sides=[16]),
        ),
    ),
)

if __name__ == '__main__':
    main()
