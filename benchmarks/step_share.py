"""OMH's part of one training step of STEGO with a ViT-S/8 backbone.

    python benchmarks/step_share.py

The model is that of configs/omh_stego_vit-s8_coco.py with random weights: 224 px, 28 x 28 positions, D = 70, levels 27,
54 and 108, past ``start_iteration``, so that the matching loss is on. A step is forward, backward and Adam, without
data loading. OMH's part is forward and backward of ``OMHHead.loss`` on the code of such a batch, measured alone: the
difference of two steps of many seconds would drown in their noise, and is given beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from common import ADAM_STEP, CODE_CHANNELS, Verdict, finish, interleave, parser, positive, start, times
from hosts import BACKBONES, build_batch, build_model, host_config
from torch import Tensor, nn

from omh_mmseg.models.omh.gradient_shares import GradientShares
from omh_mmseg.models.omh.hierarchy_figures import hierarchy_figures
from omh_mmseg.registry import MODELS

LIMIT = 0.10
# The default and what costs most: every loss on, both directions, gradients through the solver, a small lambda.
VARIANTS: dict[str, dict[str, Any]] = {
    'default': dict(),
    'lambda 0.01': dict(entropy_weight=0.01),
    'all losses': dict(cluster_weight=0.03),
    'both directions': dict(direction='both'),
    'solver gradient': dict(plan_gradient='solver'),
    'all of these': dict(entropy_weight=0.01, cluster_weight=0.03, direction='both', plan_gradient='solver'),
}


def total(losses: dict[str, Tensor]) -> Tensor:
    """Sum of what is named a loss, as mmengine adds it up."""
    return torch.stack([value for name, value in losses.items() if 'loss' in name]).sum()


def move(head: nn.Module) -> None:
    """One step of Adam's size on the centres, so that no warm start meets the problem it came from."""
    with torch.no_grad():
        for centres in head.centres:
            centres.add_(ADAM_STEP * torch.randn_like(centres).sign())
            centres.grad = None


def head_of(model: nn.Module, config: dict[str, Any], variant: dict[str, Any]) -> nn.Module:
    """An OMH head of the model's config with other options."""
    sizes = dict(in_channels=CODE_CHANNELS, num_classes=model.num_classes)
    return MODELS.build({**config, **variant, **sizes}).train()


def steps(model: nn.Module, batch: dict[str, Any]) -> dict[str, Any]:
    """The step without and with OMH on a normalised batch."""
    optimizer = torch.optim.Adam([item for item in model.parameters() if item.requires_grad], lr=5e-4)
    head = model.omh_head

    def step(omh: nn.Module | None) -> None:
        model.omh_head = omh
        optimizer.zero_grad()
        total(model.loss(**batch)).backward()
        optimizer.step()

    return {'step without OMH': lambda: lambda: step(None), 'step with OMH': lambda: lambda: step(head)}


def whole(head: nn.Module, code: Tensor) -> Callable[[], Callable[[], None]]:
    """Forward and backward of ``OMHHead.loss``."""

    def fresh() -> Callable[[], None]:
        move(head)
        leaf = code.clone().requires_grad_()
        return lambda: total(head.loss(leaf, GradientShares(leaf))).backward()

    return fresh


def parts(head: nn.Module, code: Tensor) -> dict[str, Callable[[], Callable[[], object]]]:
    """Parts of OMH, each measured by itself on inputs of its own."""
    with torch.no_grad():
        positions = head._directions(code)
        flat = head._similarities(positions, head._centre_directions(positions.dtype))
        plans = head.plans(flat)

    def similarities() -> Callable[[], None]:
        leaf = code.clone().requires_grad_()
        gradients = [torch.rand_like(similarity) for similarity in flat]

        def run() -> None:
            positions = head._directions(leaf)
            centres = head._centre_directions(positions.dtype)
            torch.autograd.backward(head._similarities(positions.detach(), centres), gradients)
            torch.autograd.backward(head._similarities(positions, centres.detach()), gradients)

        return run

    def solve() -> Callable[[], object]:
        move(head)
        return head.plans

    def matching() -> Callable[[], None]:
        leaves = [item.clone().requires_grad_() for item in flat]
        return lambda: torch.stack(head._match(leaves, plans)).sum().backward()

    def centre_losses() -> Callable[[], None]:
        leaves = [item.clone().requires_grad_() for item in flat]
        return lambda: torch.stack([head.cluster_loss(leaf) for leaf in leaves]).sum().backward()

    return {
        'part: similarities': similarities,
        'part: plans': solve,
        'part: matching': matching,
        'part: centre losses': centre_losses,
        'part: diagnostics': lambda: lambda: hierarchy_figures(flat, plans),
    }


def main(argv: Sequence[str] | None = None) -> list[Verdict]:
    """Measure, print the table, write the CSV file."""
    options = parser(__doc__, repeats=3, device=True)
    options.add_argument('--batch-sizes', type=positive, nargs='+', default=[16, 32])
    options.add_argument('--image-size', type=positive, default=224)
    options.add_argument('--backbone', choices=BACKBONES, default='vit-s8', help='tiny: to try the script')
    options.add_argument('--part-repeats', type=positive, default=10, help="measurements of OMH's own parts")
    options.add_argument('--variants', choices=VARIANTS, nargs='+', default=list(VARIANTS))
    args = options.parse_args(argv)
    environment = start(args)
    torch.manual_seed(0)
    device = args.device
    config = host_config('stego', omh=True, backbone=args.backbone, image_size=args.image_size)
    # The norms logged every 50th step are watched, not needed: they are no part of the step here.
    config.model.gradient_log_interval = 0
    model = build_model(config, device)
    rows: list[dict[str, Any]] = []
    verdicts = []
    for batch in args.batch_sizes:
        inputs = build_batch('stego', batch, args.image_size, model.num_classes, device)
        inputs = model.data_preprocessor(inputs, training=True)
        with torch.no_grad():
            code = model.encode(inputs['inputs']['anchor'])
        names = dict.fromkeys(['default', *args.variants])
        variants = {name: head_of(model, config.model.omh_head, VARIANTS[name]).to(device) for name in names}
        own: dict[str, Any] = {f'OMH, {name}': whole(head, code) for name, head in variants.items()}
        own.update(parts(copy.deepcopy(variants['default']), code))
        taken = interleave(own, args.part_repeats, progress=f'OMH alone, batch {batch}', device=device)
        label = f'whole steps, batch {batch}'
        taken.update(interleave(steps(model, inputs), args.repeats, warmup=0, progress=label, device=device))
        reference = taken['step with OMH']
        for name, measured in taken.items():
            rows.append(
                dict(
                    batch=batch,
                    what=name,
                    **times(measured),
                    wall_percent=round(100 * measured.wall_ms / reference.wall_ms, 2),
                    cpu_percent=round(100 * measured.cpu_ms / reference.cpu_ms, 2),
                )
            )
        own_part, without = taken['OMH, default'], taken['step without OMH']
        shares = own_part.wall_ms / reference.wall_ms, own_part.cpu_ms / reference.cpu_ms
        difference = 1 - without.cpu_ms / reference.cpu_ms
        verdicts.append(
            Verdict(
                f'OMH takes under {100 * LIMIT:.0f} % of a STEGO step with {args.backbone}, batch {batch}',
                f'{100 * shares[0]:.2f} % of the time, {100 * shares[1]:.2f} % of the processor time '
                f'(difference of whole steps: {100 * difference:.2f} % of the processor time)',
                max(shares) < LIMIT,
            )
        )
    title = f"OMH's share of a STEGO step, levels {model.omh_head.level_sizes}"
    return finish('step_share', title, rows, environment, args, verdicts)


if __name__ == '__main__':
    main()
