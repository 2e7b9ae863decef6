"""Train many settings with several seeds; write one row per run, one table and the plan's pictures.

The runs come from a plan file (configs/study has some) or from the command line:

    python tools/analysis_tools/sweep.py configs/study/weights.py --work-dir work_dirs/weights --seeds 0 1 2
    python tools/analysis_tools/sweep.py --work-dir work_dirs/tau --reference "tau .1" --runs \
        "tau .1: configs/omh_stego_vit-t8_demo.py" \
        "tau .2: configs/omh_stego_vit-t8_demo.py model.omh_head.temperature=0.2"

The same command continues after any end: finished runs are kept as long as their settings and the source stay the
same, interrupted ones go on from their last checkpoint, failed ones are tried again.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.engine import launch  # noqa: E402
from omh_mmseg.study.plan import SweepPlan, parse_placeholders, parse_run, read_plan  # noqa: E402
from omh_mmseg.study.runner import Resources, default_devices, run_sweep  # noqa: E402
from omh_mmseg.study.table import sweep_table  # noqa: E402
from omh_mmseg.utils.config import add_config_options  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_argument_group('what to run')
    source.add_argument('plan', nargs='?', help='plan file (.py, .yaml or .json) with the runs')
    source.add_argument('--runs', nargs='+', default=[], metavar='"[NAME: ]CONFIG [KEY=VALUE ...]"')
    source.add_argument('--set', nargs='+', default=[], metavar='NAME=VALUE', help="values of the plan's placeholders")
    source.add_argument('--seeds', type=int, nargs='+', help='in place of those of the plan, or of 0 1 2')
    source.add_argument('--only', nargs='+', default=[], metavar='PATTERN', help='names of the runs to carry out')
    source.add_argument('--reference', nargs='+', metavar='NAME', help='runs that the others are compared with')
    source.add_argument('--protocols', nargs='+', metavar='NAME', help='score every model by these, too (test.py)')
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


def read_arguments(args: argparse.Namespace) -> SweepPlan:
    """The plan that the arguments describe."""
    if bool(args.plan) == bool(args.runs):
        raise ValueError('give either a plan file or --runs')
    if args.plan:
        plan = read_plan(args.plan, parse_placeholders(args.set))
    else:
        plan = SweepPlan(tuple(map(parse_run, args.runs)))
    given = dict(seeds=args.seeds, references=args.reference, protocols=args.protocols)
    return replace(plan, **{name: tuple(value) for name, value in given.items() if value is not None})


def main() -> None:
    """Run the command."""
    args = build_parser().parse_args()
    try:
        launch.check_work_dir(args.work_dir)
        plan = read_arguments(args)
        resources = Resources(
            tuple(args.devices or default_devices()), args.jobs, args.threads, not args.new_interpreters
        )
        rows = run_sweep(
            plan, args.work_dir, args.cfg_options, resources, args.only, args.any_source, not args.tables_only,
            args.runs_dir,
        )  # fmt: skip
    except KeyboardInterrupt:
        sys.exit('interrupted; run the same command again to continue')
    except (OSError, ValueError) as error:
        sys.exit(f'sweep.py: {error}')
    print(sweep_table(rows, plan))
    print(f'runs.csv, table.csv, table.md and the pictures are in {Path(args.work_dir).resolve()}')
    sys.exit(1 if any(row['status'] == 'failed' for row in rows) else 0)


if __name__ == '__main__':
    main()
