"""Segment a folder of images (or single ones), or videos: masks, overlays, a picture of all levels, a JSON summary.

python tools/predict.py work_dirs/my_run photos
python tools/predict.py CONFIG CHECKPOINT photos/a.jpg photos/b.jpg --grid levels.png
python tools/predict.py --demo
python tools/predict.py work_dirs/my_run clip.mp4 --smoothing 0.5
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from omh_mmseg.commands.options import RunParser, add_config_options, add_prediction_arguments, read_places
from omh_mmseg.commands.start import start
from omh_mmseg.shipped import name_commands
from omh_mmseg.structures.protocols import known_protocols
from omh_mmseg.utils.text import first_few
from omh_mmseg.utils.work_dirs import resolve_run

OPACITY, GRID_ROWS = 0.5, 6


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = RunParser(description=name_commands(__doc__ or ''), formatter_class=argparse.RawDescriptionHelpFormatter)
    add_prediction_arguments(parser)
    parser.add_argument('--out-dir', default='predictions', help='folder of the results (default: ./predictions)')
    parser.add_argument('--levels', type=int, nargs='*', help='OMH levels to predict; default: all')
    parser.add_argument('--overlay', default='probe', help='head drawn over the images: probe, level1, ... or none')
    parser.add_argument('--opacity', type=float, help='of the overlay, in (0, 1] (default: 0.5)')
    parser.add_argument('--grid', metavar='PNG', help='picture to write: an image per row, a level per column')
    parser.add_argument('--grid-rows', type=int, help='images in it, spread evenly (default: 6)')
    parser.add_argument('--grid-photos', action='store_true', help='show the images in it beside their masks')
    parser.add_argument('--protocol', metavar='NAME', help=f'resize, crop, flip and CRF by name: {known_protocols()}')
    parser.add_argument('--crf', action=argparse.BooleanOptionalAction, help='refine with the dense CRF')
    parser.add_argument('--flip', action=argparse.BooleanOptionalAction, help='average with the mirrored image')
    parser.add_argument('--batch-size', type=int, default=1, help='images of one size taken together')
    parser.add_argument('--smoothing', type=float, default=0.0, help='of videos: weight of the past, in [0, 1)')
    parser.add_argument('--stride', type=int, default=1, help='of videos: every so many frames one is segmented')
    parser.add_argument('--raft', metavar='WEIGHTS', help="of --smoothing: torchvision's RAFT (small) in place of DIS")
    parser.add_argument('--device', help='e.g. cpu or cuda:1; default: the first GPU, else the CPU')
    add_config_options(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Segment; status 1 where images failed."""
    from omh_mmseg.apis import SegmentationInferencer, collect_images, draw_prediction_grid, predict_images
    from omh_mmseg.datasets.demo_scenes import draw_examples
    from omh_mmseg.datasets.images.listing import Listing
    from omh_mmseg.datasets.video.video_folder import videos_among, videos_in

    read_places(args)
    config, checkpoint = resolve_run(args.config, args.checkpoint)
    if args.demo:
        args.images = [str(draw_examples(Path(args.out_dir) / 'scenes'))]
        args.grid = args.grid or str(Path(args.out_dir) / 'levels.png')
    videos = videos_among(args.images)
    others = [path for path in args.images if path not in videos]
    _refuse_idle(args, bool(videos), bool(others))
    folders = _video_folders(videos, args.out_dir)
    try:
        images, folder, skipped = collect_images(others) if others else ([], None, [])
    except (FileNotFoundError, ValueError) as error:
        inside = videos_in([path for path in others if Path(path).is_dir()])
        if not inside:
            raise
        raise type(error)(f'{error}. Videos are named one by one: {first_few(inside)}') from error
    inferencer = SegmentationInferencer(
        config, checkpoint, args.device, args.levels, args.protocol, args.flip, args.crf,
        args.batch_size, args.cfg_options,
    )  # fmt: skip
    overlay = None if args.overlay == 'none' else args.overlay
    args.opacity = OPACITY if args.opacity is None else args.opacity
    args.grid_rows = GRID_ROWS if args.grid_rows is None else args.grid_rows
    failed = [video for video in videos if not _predict_video(args, inferencer, video, folders[video], overlay)]
    if not others:
        return 1 if failed else 0
    summary = predict_images(inferencer, images, args.out_dir, folder, overlay, args.opacity, skipped)
    segmented = [entry['image'] for entry in summary['images']]
    if args.grid and segmented:
        draw_prediction_grid(args.grid, inferencer, segmented, args.grid_rows, args.grid_photos or args.demo)
    if segmented:
        print(
            f'{len(segmented)} images in {summary["seconds"]:.1f} seconds; masks, overlays and summary.json are in '
            f'{args.out_dir}' + (f'; all levels side by side: {args.grid}' if args.grid else '')
        )
    else:
        print(f'nothing was segmented; masks of before in {args.out_dir} stay')
    for failure in summary['failed']:
        print(f'not segmented: {failure["error"]}')
    counts = summary['counts']
    if skipped:
        print(f'skipped: {Listing(skipped=skipped).describe_skipped()}')
    print(
        f'{counts["found"]} found: {counts["segmented"]} segmented, {counts["failed"]} failed, '
        f'{counts["skipped"]} skipped'
    )
    return 1 if summary['failed'] or failed else 0


def _video_folders(videos: list[str], out_dir: str) -> dict[str, Path]:
    """Where the results of each video go: by its name without ending, with it where several share that."""
    stems, names = Counter(Path(video).stem for video in videos), Counter(Path(video).name for video in videos)
    same = [name for name, count in names.items() if count > 1]
    if same:
        raise ValueError(f'several videos are called {", ".join(same)}: segment them in calls of their own --out-dir')
    return {
        video: Path(out_dir) / (Path(video).stem if stems[Path(video).stem] == 1 else Path(video).name)
        for video in videos
    }


def _predict_video(args: argparse.Namespace, inferencer: Any, video: str, folder: Path, overlay: str | None) -> bool:
    """Whether the video was segmented; one that cannot be read is named, and others go on."""
    from omh_mmseg.apis import predict_video
    from omh_mmseg.datasets.video.reader import VideoError

    flow = None if args.raft is None else dict(type='RAFTFlow', weights=args.raft)
    try:
        summary = predict_video(inferencer, video, folder, overlay, args.opacity, args.smoothing, flow, args.stride)
    except VideoError as error:
        print(f'not segmented: {error}')
        return False
    speed = ''
    if summary['frames_per_second'] is not None:
        speed = (
            f' in {summary["seconds"]:.1f} seconds: {summary["frames_per_second"]} frames per second, the bare forward '
            f'{summary["forward_per_second"]}'
        )
    print(f'{video}: {summary["frames"]} frames{speed}; masks, overlay and summary.json are in {folder}')
    return True


def _refuse_idle(args: argparse.Namespace, videos: bool, images: bool) -> None:
    """Raise ValueError for options that nothing of what is given takes."""
    without_grid = args.grid is None and not args.demo
    rows = dict(grid_rows=args.grid_rows is not None, grid_photos=args.grid_photos) if without_grid else {}
    opacity = dict(opacity=args.opacity is not None) if args.overlay == 'none' else {}
    for options, whole in ((rows, 'there is no --grid'), (opacity, 'there are no overlays')):
        idle = [f'--{name.replace("_", "-")}' for name, is_set in options.items() if is_set]
        if idle:
            raise ValueError(f'{", ".join(idle)} would reach nothing: {whole}')
    of_videos = dict(smoothing=args.smoothing != 0, stride=args.stride != 1, raft=args.raft is not None)
    of_images = dict(grid=args.grid is not None, batch_size=args.batch_size != 1)
    for given, options, kind in ((videos, of_videos, 'video'), (images, of_images, 'image')):
        idle = [f'--{name.replace("_", "-")}' for name, is_set in options.items() if is_set and not given]
        if idle:
            raise ValueError(f'{", ".join(idle)} would reach nothing: there is no {kind} among {args.images}')


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('predict.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
