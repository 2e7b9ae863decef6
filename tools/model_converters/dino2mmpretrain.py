"""Convert weights of DINO's vision transformers to the names of mmpretrain.VisionTransformer.

Example:
    python tools/model_converters/dino2mmpretrain.py \
        https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth dino_vit-s16.pth
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.models.converters.dino import convert_dino  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('source', metavar='SRC', help="path or address of DINO's weights")
    parser.add_argument('target', metavar='DST', help='file to write')
    parser.add_argument(
        '--trust', action='store_true', help='read pickled objects too (inertly), as whole training checkpoints hold'
    )
    return parser


def main() -> None:
    """Convert, and say how to use the result."""
    args = build_parser().parse_args()
    try:
        shape = convert_dino(args.source, args.target, args.trust)
    except (OSError, ValueError) as error:
        sys.exit(f'dino2mmpretrain.py: {error}')
    options = ', '.join(f'{name}={value!r}' for name, value in shape.config().items())
    target = Path(args.target).resolve()
    print(f'wrote {target}\nbackbone: dict({options},\n    init_cfg=dict(type="Pretrained", checkpoint="{target}"))')


if __name__ == '__main__':
    main()
