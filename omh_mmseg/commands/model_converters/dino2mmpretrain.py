"""Convert weights of DINO's vision transformers to the names of mmpretrain.VisionTransformer.

Example:
    python tools/model_converters/dino2mmpretrain.py \
        https://dl.fbaipublicfiles.com/dino/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth dino_vit-s16.pth
"""

from __future__ import annotations

import argparse
from pathlib import Path

from omh_mmseg.commands.model_converters.options import converter_parser
from omh_mmseg.commands.start import start


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    return converter_parser(__doc__, "path or address of DINO's weights")


def run(args: argparse.Namespace) -> None:
    """Convert, and say how to use the result."""
    from omh_mmseg.models.converters.dino import convert_dino

    shape = convert_dino(args.source, args.target, args.trust)
    options = ', '.join(f'{name}={value!r}' for name, value in shape.config().items())
    target = Path(args.target).resolve()
    print(f'wrote {target}\nbackbone: dict({options},\n    init_cfg=dict(type="Pretrained", checkpoint="{target}"))')


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('dino2mmpretrain.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
