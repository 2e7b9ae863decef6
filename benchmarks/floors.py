"""What no rearrangement of our own spares: the bare operations behind the parts of a step that miss their goal.

    python benchmarks/floors.py

Random numbers of the right shapes, torch's own matrix products and functions, nothing around them: neither plans,
clusterings, heads, data nor an optimiser. What a part takes above its floor is what could be won. The shapes are those
of ViT-S/8 at 224 pixels, 784 positions an image.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from common import CODE_CHANNELS, LEVEL_SIZES, POSITIONS_PER_IMAGE, Benchmark, Question, Rows, Verdict, interleave
from start_up import run
from torch import Tensor

FEATURES, PROJECTED, POOL, SIDE = 384, 512, 2048, 1024
"""Channels of the features and of HP's projections, vectors of each of its pools, and patches of a block's side."""
TEMPERATURE = 0.1
IMPORTS = 'import time, torch, mmseg.models; print(time.process_time())'


def floors(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """Bare OMH, HP's bare contrast by batch, and the imports of two commands."""
    works: dict[tuple[str, int], Callable[[], object]] = {('OMH', args.batch): bare_omh(args.batch * args.positions)}
    for batch in args.batch_sizes:
        works['contrast', batch] = bare_contrast(batch * args.positions)
    rows: Rows = []
    for (what, batch), work in works.items():
        repeats = args.repeats if batch <= args.batch else 1
        taken = interleave({what: lambda work=work: work}, repeats, warmup=int(repeats > 1), progress=what)
        rows.append(dict(what=what, batch=batch, **taken[what].times()))
    starts = [run(['-c', IMPORTS]) for _ in range(2 * args.starts)]
    cpu, wall = (1e3 * sum(each) / args.starts for each in zip(*starts))
    rows.append(dict(what='imports of two commands', batch='', wall_ms=round(wall), cpu_ms=round(cpu)))
    return rows, []


def bare_omh(positions: int) -> Callable[[], object]:
    """Cosines of a code with all centres, their softmax, and the gradient of these on the code."""
    code = F.normalize(torch.randn(positions, CODE_CHANNELS), dim=1).requires_grad_()
    levels = [F.normalize(torch.randn(size, CODE_CHANNELS), dim=1) for size in LEVEL_SIZES]
    slopes = [torch.randn(positions, size) for size in LEVEL_SIZES]

    def work() -> Tensor:
        activations = [torch.softmax(code @ centres.t() / TEMPERATURE, 1) for centres in levels]
        return torch.autograd.grad(activations, code, slopes)[0]

    return work


def bare_contrast(patches: int) -> Callable[[], object]:
    """The matrix products of each pair of patches, once: two searches of positives, two logits and their gradients."""
    projected, mixed, code = (F.normalize(torch.randn(patches, PROJECTED), dim=1) for _ in range(3))
    features = F.normalize(torch.randn(patches, FEATURES), dim=1)
    pools = [(features, torch.randn(POOL, FEATURES)), (code, torch.randn(POOL, PROJECTED))]
    gradients = [torch.zeros_like(projected) for _ in range(2)]
    starts = range(0, patches, SIDE)

    def work() -> None:
        for vectors, pool in pools:
            for rows in vectors.split(SIDE):
                rows @ pool.t()
        for first in starts:
            for second in starts[first // SIDE :]:
                rows, columns = slice(first, first + SIDE), slice(second, second + SIDE)
                for vectors in (features, code):
                    vectors[rows] @ vectors[columns].t()
                for view, gradient in zip((projected, mixed), gradients):
                    logits = view[rows] @ view[columns].t()
                    gradient[rows].addmm_(logits, view[columns])
                    if first != second:
                        gradient[columns].addmm_(logits.t(), view[rows])

    return work


main = Benchmark(
    __file__,
    __doc__,
    {
        '': Question(
            floors,
            'Bare operations',
            repeats=9,
            options=dict(batch=4, batch_sizes=[4, 32], positions=POSITIONS_PER_IMAGE, starts=3),
            quick=dict(repeats=3, batch_sizes=[4], starts=1),
        )
    },
)

if __name__ == '__main__':
    main()
