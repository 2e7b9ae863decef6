"""Write a page to walk through a hierarchy: the tree of clusters, and images at every level of it.

    python tools/explore.py work_dirs/my_run photos --out report
    python tools/explore.py CONFIG CHECKPOINT photos/a.jpg photos/b.jpg --out report

Open report/index.html in a browser; it needs no network and no server.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from omh_mmseg.commands.options import RunParser, add_config_options, add_run_arguments
from omh_mmseg.commands.start import start
from omh_mmseg.shipped import name_commands
from omh_mmseg.structures.protocols import known_protocols
from omh_mmseg.utils.work_dirs import resolve_run, split_inputs


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = RunParser(description=name_commands(__doc__ or ''), formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser)
    parser.add_argument('images', metavar='IMAGES', nargs='+', help='folders, searched recursively, and image files')
    parser.add_argument('--out', default='report', help='folder of the page (default: ./report)')
    parser.add_argument('--most-images', type=int,
                        help='images in the page, spread evenly over those given (default: 60)')  # fmt: skip
    parser.add_argument('--side', type=int, help='longer side of a picture in pixels (default: 480)')  # fmt: skip
    parser.add_argument('--no-figures', action='store_true',
                        help='leave out the figures without labels, which take two more passes per image')  # fmt: skip
    parser.add_argument('--protocol', metavar='NAME', help=f'resize, crop, flip and CRF by name: {known_protocols()}')
    parser.add_argument('--device', help='e.g. cpu or cuda:1; default: the first GPU, else the CPU')
    add_config_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Predict and write; status 1 where an image was not segmented."""
    from omh_mmseg.apis.image_paths import collect_images
    from omh_mmseg.apis.inference import SegmentationInferencer
    from omh_mmseg.datasets.images.listing import Listing
    from omh_mmseg.explorer import ReportOptions, write_report
    from omh_mmseg.explorer.report import PAGE

    args.checkpoint, args.images = split_inputs(args.config, args.checkpoint, args.images)
    sizes = {name: getattr(args, name) for name in ('most_images', 'side') if getattr(args, name) is not None}
    options = ReportOptions(**sizes, measure=not args.no_figures)
    config, checkpoint = resolve_run(args.config, args.checkpoint)
    images, folder, skipped = collect_images(args.images)
    inferencer = SegmentationInferencer(
        config, checkpoint, args.device, protocol=args.protocol, options=args.cfg_options
    )
    summary = write_report(inferencer, images, args.out, folder, options)
    for failure in summary['failed']:
        print(f'not segmented: {failure["error"]}')
    if skipped:
        print(f'skipped: {Listing(skipped=skipped).describe_skipped()}')
    print(f'{summary["facts"]}; {summary["bytes"] / 1e6:.1f} MB')
    print(f'page: {Path(args.out) / PAGE}')
    return 1 if summary['failed'] else 0


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('explore.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
