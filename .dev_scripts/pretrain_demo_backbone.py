"""Pre-train the demo backbone without labels, on drawn scenes or a folder of photos, and export its weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.runner import Runner
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import omh_mmseg  # noqa: E402, F401  makes mmpretrain importable
from omh_mmseg.datasets.scenes.store import prepare_scenes  # noqa: E402
from omh_mmseg.utils.config import read_config  # noqa: E402
from omh_mmseg.utils.files import replaced_when_complete  # noqa: E402
from omh_mmseg.utils.settings import Settings  # noqa: E402


def run_in_bfloat16(model: torch.nn.Module) -> None:
    """Let every vision transformer in the model compute in bfloat16 on the CPU, as ``AmpOptimWrapper`` does on a GPU.

    The rest of the model stays in float32.
    """
    from mmpretrain.models import VisionTransformer

    def in_bfloat16(forward: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
        def autocast_forward(*args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
            with torch.autocast('cpu', torch.bfloat16):
                return tuple(features.float() for features in forward(*args, **kwargs))

        return autocast_forward

    for module in model.modules():
        if isinstance(module, VisionTransformer):
            module.forward = in_bfloat16(module.forward)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='pre-training config')
    parser.add_argument('--out', type=Path, required=True, help='where the backbone goes (float16 weights)')
    parser.add_argument('--work-dir', help='folder of logs and checkpoints; default: that of the config')
    parser.add_argument('--data-root', help='folder of the images; default: that of the config')
    parser.add_argument('--bf16', action='store_true', help='let the backbone compute in bfloat16')
    parser.add_argument('--resume', action='store_true', help='go on from the last checkpoint of the work directory')
    parser.add_argument('--threads', type=int, default=1, help='threads of torch')
    parser.add_argument('--cfg-options', nargs='+', action=Settings, help='override settings, key=value')
    return parser.parse_args()


def export_backbone(state: dict[str, Tensor], grid: int, out: Path) -> None:
    """Write the backbone alone, in float16, with position embeddings for ``grid`` x ``grid`` patches.

    Args:
        state: State of the whole pre-training model.
        grid: Patches per side at which the backbone will be used.
        out: Target file.
    """
    from mmpretrain.models.utils import resize_pos_embed

    weights = {key.removeprefix('backbone.'): value for key, value in state.items() if key.startswith('backbone.')}
    side = round((weights['pos_embed'].shape[1] - 1) ** 0.5)
    weights['pos_embed'] = resize_pos_embed(weights['pos_embed'], (side, side), (grid, grid), 'bicubic', 1)
    with replaced_when_complete(out) as file:
        torch.save({key: value.half() for key, value in weights.items()}, file)


def main() -> None:
    """Draw the images where the config says so, pre-train, export."""
    args = parse_args()
    torch.set_num_threads(args.threads)
    root = {'data_root': args.data_root} if args.data_root else {}
    cfg = read_config(args.config, {**root, **(args.cfg_options or {})})
    cfg.resume = args.resume
    if args.work_dir:
        cfg.work_dir = args.work_dir
    if cfg.get('scenes'):
        prepare_scenes(cfg.data_root, cfg.scenes.seed, dict(cfg.scenes.counts))
    elif not Path(cfg.data_root).is_dir():
        sys.exit(f'pretrain_demo_backbone.py: there is no folder {Path(cfg.data_root).absolute()}; set --data-root')
    runner = Runner.from_cfg(cfg)
    if args.bf16:
        run_in_bfloat16(runner.model)
    runner.train()
    export_backbone(runner.model.state_dict(), cfg.export_grid, args.out)
    print(f'wrote {args.out} ({args.out.stat().st_size / 1e6:.2f} MB)')


if __name__ == '__main__':
    main()
