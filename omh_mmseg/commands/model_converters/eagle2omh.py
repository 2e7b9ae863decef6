"""Convert a published Lightning checkpoint of EAGLE to one that tools/test.py loads.

Example:
    python tools/model_converters/eagle2omh.py cocostuff.ckpt eagle_vit-s8_coco.pth --trust
"""

from __future__ import annotations

import argparse

from omh_mmseg.commands.model_converters.options import converter_parser, tell_test
from omh_mmseg.commands.start import start


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    return converter_parser(__doc__)


def run(args: argparse.Namespace) -> None:
    """Convert, and print how to test the result."""
    from omh_mmseg.models.converters.dino import convert_file
    from omh_mmseg.models.converters.eagle import convert_eagle_checkpoint

    converted = convert_file(convert_eagle_checkpoint, args.source, args.target, args.trust)
    print(
        f'wrote {args.target}: {converted.num_classes} classes and {converted.extra_clusters} extra clusters, code of '
        f'{converted.channels} channels'
    )
    if converted.left_out:
        print('left out, as nothing evaluates it: ' + ', '.join(converted.left_out))
    options = {
        'model.decode_head.channels': converted.channels,
        'model.cluster_probe.extra_clusters': converted.extra_clusters,
    }
    tell_test('eagle', converted.backbone.short_name, args.target, options)


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('eagle2omh.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
