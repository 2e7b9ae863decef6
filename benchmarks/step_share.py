"""OMH's part of one training step of STEGO with a ViT-S/8 backbone.

    python benchmarks/step_share.py

The model is that of configs/omh_stego_vit-s8_coco.py with random weights: 224 px, 28 x 28 positions, D = 70, levels 27,
54 and 108, past the step from which OMH reaches the features, so that the matching loss is on. A step is forward,
backward and Adam, without data loading. OMH's part is forward and backward of ``OMHHead.loss`` on the code of such a
batch, measured alone: the difference of two steps of many seconds would drown in their noise, and is given beside it.
"""

from __future__ import annotations

import argparse
import copy
import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from common import ADAM_STEP, CODE_CHANNELS, Benchmark, Prepared, Question, Rows, Samples, Verdict, interleave
from hosts import BACKBONES, build_batch, build_model, host_config, total
from torch import Tensor, nn

from omh_mmseg.models.omh.gradient_shares import GradientShares
from omh_mmseg.registry import MODELS
from omh_mmseg.transport import cluster_usage, diagnose_plan

LIMIT = 0.10
# The default and what costs most: every loss on, both directions, gradients through the solver, a small lambda.
VARIANTS: dict[str, dict[str, Any]] = {
    'default': dict(),
    'lambda 0.01': dict(plan=dict(entropy_weight=0.01)),
    'all losses': dict(cluster=dict(loss_weight=0.03)),
    'both directions': dict(match=dict(direction='both')),
    'solver gradient': dict(plan=dict(gradient='solver')),
    'all of these': dict(
        plan=dict(entropy_weight=0.01, gradient='solver'),
        cluster=dict(loss_weight=0.03),
        match=dict(direction='both'),
    ),
}


def share(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """OMH alone, whole and in parts, and whole steps."""
    torch.manual_seed(0)
    device = args.device
    config = host_config('stego', omh=True, backbone=args.backbone, image_size=args.image_size)
    # The norms logged every 50th step are watched, not needed: they are no part of the step here.
    config.model.gradient_log_interval = 0
    model = build_model(config, device)
    rows: Rows = []
    verdicts = []
    for batch in args.batch_sizes:
        inputs = build_batch('stego', batch, args.image_size, model.num_classes, device)
        inputs = model.data_preprocessor(inputs, training=True)
        with torch.no_grad():
            code = model.encode(inputs['inputs']['anchor'])
        names = dict.fromkeys(['default', *args.variants])
        heads = {name: head_of(model, config.model.omh_head, VARIANTS[name]).to(device) for name in names}
        alone = {f'OMH, {name}': whole(head, code) for name, head in heads.items()}
        alone |= parts(copy.deepcopy(heads['default']), code)
        taken = interleave(alone, args.part_repeats, progress=f'OMH alone, batch {batch}', device=device)
        label = f'whole steps, batch {batch}'
        taken |= interleave(whole_steps(model, inputs), args.repeats, warmup=0, progress=label, device=device)
        own, without, step = (taken[name] for name in ('OMH, default', 'step without OMH', 'step with OMH'))

        def percent(sample: Samples, step: Samples = step) -> dict[str, float]:
            wall, cpu = sample.wall_ms / step.wall_ms, sample.cpu_ms / step.cpu_ms
            return dict(wall_percent=round(100 * wall, 2), cpu_percent=round(100 * cpu, 2))

        rows += [dict(batch=batch, what=name, **one.times(), **percent(one)) for name, one in taken.items()]
        wall, cpu = percent(own).values()
        verdicts.append(
            Verdict(
                f'OMH takes under {100 * LIMIT:.0f} % of a STEGO step with {args.backbone}, batch {batch}',
                f'{wall:.2f} % of the time, {cpu:.2f} % of the processor time (difference of whole steps: '
                f'{100 * (1 - without.cpu_ms / step.cpu_ms):.2f} % of the processor time)',
                max(wall, cpu) < 100 * LIMIT,
            )
        )
    return rows, verdicts


def head_of(model: nn.Module, config: dict[str, Any], variant: dict[str, Any]) -> nn.Module:
    """An OMH head of the model's config with other options."""
    sizes = dict(in_channels=CODE_CHANNELS, num_classes=model.num_classes)
    return MODELS.build({**config, **variant, **sizes}).train()


def whole_steps(model: nn.Module, batch: dict[str, Any]) -> dict[str, Prepared]:
    """The step without and with OMH on a normalised batch: forward, backward and Adam."""
    optimizer = torch.optim.Adam([item for item in model.parameters() if item.requires_grad], lr=5e-4)
    head = model.omh_head

    def step(omh: nn.Module | None) -> None:
        model.omh_head = omh
        optimizer.zero_grad()
        total(model.loss(**batch)).backward()
        optimizer.step()

    return {'step without OMH': lambda: lambda: step(None), 'step with OMH': lambda: lambda: step(head)}


def move(head: nn.Module) -> None:
    """One step of Adam's size on the centres, so that no warm start meets the problem it came from."""
    with torch.no_grad():
        for centres in head.centres:
            centres.add_(ADAM_STEP * torch.randn_like(centres).sign())
            centres.grad = None


def whole(head: nn.Module, code: Tensor) -> Prepared:
    """Forward and backward of ``OMHHead.loss``."""
    steps = itertools.count()

    def fresh() -> Callable[[], None]:
        move(head)
        leaf = code.clone().requires_grad_()
        return lambda: total(head.loss(leaf, next(steps), GradientShares(leaf))).backward()

    return fresh


def parts(head: nn.Module, code: Tensor) -> dict[str, Prepared]:
    """Parts of OMH, each measured by itself on inputs of its own."""

    def unit_centres(dtype: torch.dtype) -> Tensor:
        return F.normalize(torch.cat(list(head.centres)).to(dtype), dim=1)

    with torch.no_grad():
        positions = head._directions(code)
        flat = head._similarities(positions, unit_centres(positions.dtype))
        plans = head.plans()

    def similarities() -> Callable[[], None]:
        leaf = code.clone().requires_grad_()
        gradients = [torch.rand_like(similarity) for similarity in flat]

        def run() -> None:
            positions = head._directions(leaf)
            centres = unit_centres(positions.dtype)
            torch.autograd.backward(head._similarities(positions.detach(), centres), gradients)
            torch.autograd.backward(head._similarities(positions, centres.detach()), gradients)

        return run

    def solve() -> Callable[[], object]:
        move(head)
        centres = list(head.centres)
        return lambda: head.plan._on_device(head.plan._solve(centres), centres[0])

    def on_leaves(losses: Callable[[list[Tensor]], list[Tensor]]) -> Prepared:
        def fresh() -> Callable[[], None]:
            leaves = [item.clone().requires_grad_() for item in flat]
            return lambda: torch.stack(losses(leaves)).sum().backward()

        return fresh

    def matching(leaves: list[Tensor]) -> list[Tensor]:
        levels = head._activations(leaves)
        return [head.match(coarse, fine, plan.plan) for coarse, fine, plan in zip(levels, levels[1:], plans)]

    @torch.no_grad()
    def diagnostics() -> None:
        for similarity in flat:
            cluster_usage(similarity.argmax(1), similarity.shape[1])
        for plan in plans:
            diagnose_plan(plan)

    return {
        'part: similarities': similarities,
        'part: plans': solve,
        'part: matching': on_leaves(matching),
        'part: centre losses': on_leaves(lambda leaves: [head.rule.cluster_loss(leaf) for leaf in leaves]),
        'part: diagnostics': lambda: diagnostics,
    }


main = Benchmark(
    __file__,
    __doc__,
    {
        '': Question(
            share,
            "OMH's share of a STEGO step",
            repeats=3,
            options=dict(
                batch_sizes=[16, 32], image_size=224, backbone='vit-s8', part_repeats=10, variants=list(VARIANTS),
            ),
            quick=dict(repeats=1, part_repeats=3, batch_sizes=[16], variants=['default']),
            choices=dict(backbone=BACKBONES, variants=list(VARIANTS)),
            device='cpu',
        )
    },
)  # fmt: skip

if __name__ == '__main__':
    main()
