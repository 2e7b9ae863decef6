"""Mask proposals: the first component of what is left of an image by several solvers, and a step of PriMaPs.

    python benchmarks/proposals.py components          # C = 384 and 768, 1600 positions
    python benchmarks/proposals.py step                # batch 8 at 320 pixels, 27 classes

``components`` compares ours, which is ARPACK's, with a full decomposition, ``torch.lobpcg`` and the randomised
decomposition of the reference's settings, from the same features; the covariance is part of none of them. Features are
regions of a common mean with noise, which fixes how fast the solvers converge. ``step`` is E- and M-step on given
features and proposals, forward and backward, beside a straight-line form that upsamples the features, as the reference
does (docs/methods/primaps.md 5.1); each is measured in a process of its own.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from common import Benchmark, Question, Rows, Samples, Verdict, interleave, measure_apart, rise_on
from torch import Tensor

from omh_mmseg.models.decode_heads import MomentumPrototypes
from omh_mmseg.models.losses import ClassFrequencyLoss
from omh_mmseg.models.prediction.upsampling import Upsampling, arg_max
from omh_mmseg.models.utils.eigenvectors import largest_eigenvectors
from omh_mmseg.models.utils.mask_proposals import NO_PROPOSAL, assign_proposals, principal_masks

POSITIONS = 40
SOLVERS = ('ours', 'eigh', 'lobpcg', 'pca_lowrank, 100 iterations')


def regions(channels: int, side: int, generator: torch.Generator) -> Tensor:
    """Features (C, side, side) of about nine regions, with noise and a common mean."""
    coarse = torch.randn(1, channels, 3, 3, generator=generator)
    fine = F.interpolate(coarse, size=(side, side), mode='bilinear')[0]
    return fine + 0.3 * torch.randn(channels, side, side, generator=generator) + 0.3


def components(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """Time and error of one component, and of all proposals of an image."""
    rows: Rows = []
    for channels in args.channels:
        features = regions(channels, POSITIONS, torch.Generator().manual_seed(0))
        positions = features.flatten(1).t()
        covariance = torch.cov(positions.t(), correction=0)
        exact = torch.linalg.eigh(covariance.double())[1][:, -1]
        solvers: dict[str, Callable[[], Tensor]] = {
            SOLVERS[0]: lambda c=covariance: largest_eigenvectors(c[None], 1)[0, :, 0],
            SOLVERS[1]: lambda c=covariance: torch.linalg.eigh(c)[1][:, -1],
            SOLVERS[2]: lambda c=covariance: torch.lobpcg(c, k=1, niter=100)[1][:, 0],
            SOLVERS[3]: lambda x=positions: torch.pca_lowrank(x, q=3, niter=100)[2][:, 0],
        }
        samples = interleave({name: lambda run=run: run for name, run in solvers.items()}, args.repeats)
        for name, run in solvers.items():
            error = float(1 - (run().double() @ exact).abs())
            found = dict(error=float(f'{error:.2g}'), masks='')
            rows.append(dict(channels=channels, what=name, **samples[name].times(), **found))
        (whole,) = interleave({'': lambda f=features: partial(principal_masks, f, 0.4)}, args.repeats).values()
        count = len(principal_masks(features, 0.4))
        rows.append(dict(channels=channels, what='all masks of an image', **whole.times(), error='', masks=count))
    ours, full = (sum(row['cpu_ms'] for row in rows if row['what'] == name) for name in SOLVERS[:2])
    return rows, [
        Verdict(
            'the component takes less than a full decomposition',
            f'{ours / full:.2f} of its processor time',
            ours < full,
        )
    ]


def plain_step(probe: MomentumPrototypes, features: Tensor, student: Tensor, ids: Tensor) -> Tensor:
    """The straight-line form."""
    rows = [gains[:, None] * F.normalize(vectors, dim=1) for vectors, gains in (
        (probe.average[:, :-1], probe.average[:, -1]), (probe.directions, probe.gains)
    )]  # fmt: skip
    large = [F.interpolate(maps, size=ids.shape[-2:], mode='bilinear') for maps in (features, student)]
    scores, logits = (F.conv2d(maps, row[..., None, None]) for maps, row in zip(large, rows))
    classes = scores.argmax(1)
    targets = torch.full_like(classes, NO_PROPOSAL)
    for image in range(len(ids)):
        for number in ids[image].unique():
            if number != NO_PROPOSAL:
                inside = ids[image] == number
                targets[image][inside] = torch.bincount(classes[image][inside]).argmax()
    weights = (1 - logits.softmax(1).mean((0, 2, 3)).detach()) ** 2
    terms = F.cross_entropy(logits, targets, ignore_index=NO_PROPOSAL, reduction='none')
    return (weights[targets.clamp_max(len(weights) - 1)] * terms).mean()


def lean_step(probe: MomentumPrototypes, features: Tensor, student: Tensor, ids: Tensor) -> Tensor:
    """The library's."""
    to = Upsampling.to(ids.shape[-2:])
    classes = torch.cat([arg_max(one, to) for one in probe(features).split(1)])
    targets = assign_proposals(classes, ids, len(probe.gains))
    return ClassFrequencyLoss()(probe.running(student), targets)


FORMS = dict(library=lean_step, straightforward=plain_step)


def measured(form: str, batch: int, channels: int, size: int, classes: int, repeats: int) -> Mapping[str, Any]:
    """Time and memory of one form."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    probe, side = MomentumPrototypes(channels, classes), size // 8
    maps = [torch.stack([regions(channels, side, generator) for _ in range(batch)]) for _ in range(2)]
    coarse = torch.randint(0, 9, (batch, 1, 8, 8), generator=generator).float()
    ids = F.interpolate(coarse, size=(size, size)).to(torch.uint8)[:, 0]
    ids = torch.where(ids == 0, NO_PROPOSAL, ids)

    def step() -> None:
        loss = FORMS[form](probe, *maps, ids)
        probe.zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))

    losses: list[float] = []
    rise = rise_on('cpu', step)
    samples: Samples = interleave({form: lambda: step}, repeats)[form]
    figures = dict(**samples.times(), rss_mib=round(rise / 2**20), loss=losses[-1])
    return dict(batch=batch, channels=channels, form=form, **figures)


def step(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """Both forms."""
    cases = [(form, args.batch, args.width, args.size, args.classes, args.repeats) for form in FORMS]
    rows = measure_apart(args, cases)
    lean, plain = rows
    return rows, [
        Verdict(
            'a step is no slower than its straight-line form, and gives its loss',
            f'{lean["cpu_ms"] / plain["cpu_ms"]:.2f} of its processor time, {lean["rss_mib"]} against '
            f'{plain["rss_mib"]} MiB, losses {lean["loss"]:.6f} and {plain["loss"]:.6f}',
            lean['cpu_ms'] <= plain['cpu_ms'] and abs(lean['loss'] - plain['loss']) <= 1e-5 * abs(plain['loss']),
        )
    ]


main = Benchmark(
    __file__,
    __doc__,
    dict(
        components=Question(
            components, 'First components', repeats=5, options=dict(channels=[384, 768]),
            quick=dict(repeats=1, channels=[384]),
        ),
        step=Question(
            step, 'A step of PriMaPs on given features', repeats=3,
            options=dict(batch=8, width=384, size=320, classes=27), quick=dict(repeats=1, batch=2), apart=measured,
        ),
    ),
)  # fmt: skip

if __name__ == '__main__':
    main()
