"""Train many settings with several seeds; write one row per run, one table and the schedule's pictures.

The runs come from a schedule, a file or the name of a shipped one such as weights, or from the command line:

    python tools/analysis_tools/sweep.py configs/study/weights.py --work-dir work_dirs/weights --seeds 0 1 2
    python tools/analysis_tools/sweep.py --work-dir work_dirs/tau --reference "tau .1" --runs \
        "tau .1: configs/omh_stego_vit-t8_demo.py" \
        "tau .2: configs/omh_stego_vit-t8_demo.py model.omh_head.temperature=0.2"

or are one host on several backbones. Each is the name of a block in configs/_base_/models/backbones (or the path of
one), followed by settings of its own and, for random weights, the floor of any comparison, by the word random:

    python tools/analysis_tools/sweep.py --work-dir work_dirs/backbones --host configs/stego_mobilenet-v2_folder.py \
        --backbones mobilenet-v2 "last map: mobilenet-v2 backbone.out_indices=1" "resnet-18 random" \
        --cfg-options data_root=/my/photos num_classes=20

The same command continues after any end: finished runs are kept as long as their settings and the source stay the
same, interrupted ones go on from their last checkpoint, failed ones are tried again.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omh_mmseg.commands.options import add_config_options
from omh_mmseg.commands.start import start
from omh_mmseg.shipped import BACKBONES, name_commands, shipped_folder

if TYPE_CHECKING:
    from omh_mmseg.study.schedule import Schedule

TIMED_IMAGES = 20
PICTURE = dict(
    kind='effects', file='backbones.png', title='Backbones', metrics=['probe/mIoU', 'level1/mIoU', 'linear/mIoU']
)


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description=name_commands(__doc__ or ''), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_argument_group('what to run')
    source.add_argument('schedule', nargs='?', help='schedule of runs: file (.py, .yaml, .json) or shipped name')
    source.add_argument('--runs', nargs='+', default=[], metavar='"[NAME: ]CONFIG [KEY=VALUE ...]"')
    source.add_argument('--host', metavar='CONFIG', help='config file of the host that --backbones go into')
    source.add_argument('--backbones', nargs='+', default=[], metavar='"[NAME: ]BLOCK [random] [KEY=VALUE ...]"')
    source.add_argument('--set', nargs='+', default=[], metavar='NAME=VALUE',
                        help="values of the schedule's placeholders")  # fmt: skip
    source.add_argument('--seeds', type=int, nargs='+', help='in place of those of the schedule, or of 0 1 2')
    source.add_argument('--only', nargs='+', default=[], metavar='PATTERN', help='names of the runs to carry out')
    source.add_argument('--reference', nargs='+', metavar='NAME', help='runs that the others are compared with')
    source.add_argument('--protocols', nargs='+', metavar='NAME', help='score every model by these, too (test.py)')
    source.add_argument('--timed-images', type=int, metavar='COUNT',
                        help=f'time the prediction of so many images (with --backbones: {TIMED_IMAGES}; else none)')
    parser.add_argument('--work-dir', required=True, help='folder of runs, tables and pictures')
    parser.add_argument('--runs-dir', help='keep the runs here by their settings, so that sweeps share equal ones')
    parser.add_argument('--devices', nargs='+', metavar='DEVICE', help='cpu or cuda:0 cuda:1 ... (default: the first)')
    parser.add_argument('--jobs', type=int, help='runs at a time (default: one per device)')
    parser.add_argument('--threads', type=int, help='threads of each run (default: OMP_NUM_THREADS, or cores / jobs)')
    parser.add_argument('--any-source', action='store_true', help='keep finished runs of other source code, too')
    parser.add_argument('--new-interpreters', action='store_true', help='import everything anew for every run')
    parser.add_argument('--tables-only', action='store_true', help='train nothing; write tables and pictures again')
    add_config_options(parser)
    return parser


def read_arguments(args: argparse.Namespace) -> Schedule:
    """The schedule that the arguments describe."""
    from omh_mmseg.study.schedule import Schedule
    from omh_mmseg.study.schedule_reader import parse_backbone, parse_placeholders, parse_run, read_schedule
    from omh_mmseg.utils.config import check_config
    from omh_mmseg.utils.work_dirs import config_file

    if [bool(args.schedule), bool(args.runs), bool(args.backbones)].count(True) != 1:
        raise ValueError('give one of these: a schedule file, --runs, or --host with --backbones')
    if bool(args.host) != bool(args.backbones):
        raise ValueError('--host takes the config file of a host, --backbones what goes into it: give both or neither')
    if args.schedule:
        schedule = read_schedule(args.schedule, parse_placeholders(args.set))
    elif args.runs:
        schedule = Schedule(tuple(map(parse_run, args.runs)))
    else:
        args.host = config_file(args.host)
        check_config(args.host)
        runs = tuple(parse_backbone(text, args.host, shipped_folder('configs') / BACKBONES) for text in args.backbones)
        schedule = Schedule(runs, figures=(PICTURE,), timed_images=TIMED_IMAGES)
    if args.timed_images is not None:
        schedule = replace(schedule, timed_images=args.timed_images)
    given = dict(seeds=args.seeds, references=args.reference, protocols=args.protocols)
    changes: dict[str, Any] = {name: tuple(value) for name, value in given.items() if value is not None}
    return replace(schedule, **changes)


def run(args: argparse.Namespace) -> int:
    """Carry out the runs and print the table; status 1 where one failed."""
    from omh_mmseg.engine import launch
    from omh_mmseg.study.runner import Resources, default_devices, run_sweep
    from omh_mmseg.study.table import sweep_table

    try:
        launch.check_work_dir(args.work_dir)
        schedule = read_arguments(args)
        resources = Resources(
            tuple(args.devices or default_devices()), args.jobs, args.threads, not args.new_interpreters
        )
        rows = run_sweep(
            schedule, args.work_dir, args.cfg_options, resources, args.only, args.any_source, not args.tables_only,
            args.runs_dir,
        )  # fmt: skip
    except KeyboardInterrupt:
        sys.exit('interrupted; run the same command again to continue')
    print(sweep_table(rows, schedule))
    print(f'runs.csv, table.csv, table.md and the pictures are in {Path(args.work_dir).resolve()}')
    return 1 if any(row['status'] == 'failed' for row in rows) else 0


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('sweep.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
