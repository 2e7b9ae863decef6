"""Segment a folder of images (or single ones): masks, overlays, a picture of all levels and a JSON summary.

python tools/predict.py work_dirs/my_run photos
python tools/predict.py CONFIG CHECKPOINT photos/a.jpg photos/b.jpg --grid levels.png
python tools/predict.py --demo
"""

from __future__ import annotations

import argparse
from pathlib import Path

from omh_mmseg.commands.options import RunParser, add_config_options, add_prediction_arguments, read_places
from omh_mmseg.commands.start import start
from omh_mmseg.shipped import name_commands
from omh_mmseg.structures.protocols import known_protocols
from omh_mmseg.utils.work_dirs import resolve_run


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = RunParser(description=name_commands(__doc__ or ''), formatter_class=argparse.RawDescriptionHelpFormatter)
    add_prediction_arguments(parser)
    parser.add_argument('--out-dir', default='predictions', help='folder of the results (default: ./predictions)')
    parser.add_argument('--levels', type=int, nargs='*', help='OMH levels to predict; default: all')
    parser.add_argument('--overlay', default='probe', help='head drawn over the images: probe, level1, ... or none')
    parser.add_argument('--opacity', type=float, default=0.5, help='of the overlay, in (0, 1]')
    parser.add_argument('--grid', metavar='PNG', help='picture to write: an image per row, a level per column')
    parser.add_argument('--grid-rows', type=int, default=6, help='images in it, spread evenly (default: 6)')
    parser.add_argument('--grid-photos', action='store_true', help='show the images in it beside their masks')
    parser.add_argument('--protocol', metavar='NAME', help=f'resize, crop, flip and CRF by name: {known_protocols()}')
    parser.add_argument('--crf', action=argparse.BooleanOptionalAction, help='refine with the dense CRF')
    parser.add_argument('--flip', action=argparse.BooleanOptionalAction, help='average with the mirrored image')
    parser.add_argument('--batch-size', type=int, default=1, help='images of one size taken together')
    parser.add_argument('--device', help='e.g. cpu or cuda:1; default: the first GPU, else the CPU')
    add_config_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Segment; status 1 where images failed."""
    from omh_mmseg.apis import SegmentationInferencer, collect_images, draw_prediction_grid, predict_images
    from omh_mmseg.datasets.demo_scenes import draw_examples
    from omh_mmseg.datasets.images.listing import Listing

    read_places(args)
    config, checkpoint = resolve_run(args.config, args.checkpoint)
    if args.demo:
        args.images = [str(draw_examples(Path(args.out_dir) / 'scenes'))]
        args.grid = args.grid or str(Path(args.out_dir) / 'levels.png')
    images, folder, skipped = collect_images(args.images)
    inferencer = SegmentationInferencer(
        config, checkpoint, args.device, args.levels, args.protocol, args.flip, args.crf,
        args.batch_size, args.cfg_options,
    )  # fmt: skip
    overlay = None if args.overlay == 'none' else args.overlay
    summary = predict_images(inferencer, images, args.out_dir, folder, overlay, args.opacity, skipped)
    segmented = [entry['image'] for entry in summary['images']]
    if args.grid and segmented:
        draw_prediction_grid(args.grid, inferencer, segmented, args.grid_rows, args.grid_photos or args.demo)
    print(
        f'{len(summary["images"])} images in {summary["seconds"]:.1f} seconds; masks, overlays and summary.json are in '
        f'{args.out_dir}'
    )
    for failure in summary['failed']:
        print(f'not segmented: {failure["error"]}')
    counts = summary['counts']
    if skipped:
        print(f'skipped: {Listing(skipped=skipped).describe_skipped()}')
    print(
        f'{counts["found"]} found: {counts["segmented"]} segmented, {counts["failed"]} failed, '
        f'{counts["skipped"]} skipped'
    )
    return 1 if summary['failed'] else 0


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('predict.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
