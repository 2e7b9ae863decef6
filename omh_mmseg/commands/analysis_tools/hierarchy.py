"""What finished runs learned of the hierarchy: tables and pictures of plans, parts, scores, stability and recovery.

Examples::

    python tools/analysis_tools/hierarchy.py plans --runs work_dirs/seed_0 work_dirs/seed_1
    python tools/analysis_tools/hierarchy.py parts CONFIG CHECKPOINT --labels object
    python tools/analysis_tools/hierarchy.py scores CONFIG work_dirs/seed_*/iter_300.pth
    python tools/analysis_tools/hierarchy.py stability CONFIG work_dirs/seed_*/iter_300.pth
    python tools/analysis_tools/hierarchy.py recovery CONFIG work_dirs/seed_*/iter_300.pth

The work directory of a run stands for its config and its newest checkpoint, several for one config and several
checkpoints: `scores work_dirs/seed_*`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from omh_mmseg.choices import MARGINALS
from omh_mmseg.commands.options import RunParser, add_analysis_options, add_label_options, add_run_arguments
from omh_mmseg.commands.start import start
from omh_mmseg.shipped import name_commands
from omh_mmseg.utils.work_dirs import checkpoint_file, resolve_run, resolve_runs

WEIGHTS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
RECOVERY_NUMBERS = {
    'code-images': 'training images for k-means (default: 1000)',
    'per-image': 'codes of each for k-means (default: 100)',
    'permutations': 'random trees behind the chance (default: 200)',
    'seed': 'of k-means, its codes and the random trees (default: 0)',
}
PLANS = """Sparsity of the plans and effective parents: over the training of runs, and against the entropy weight.

Runs are work directories with the figures that a training logs; checkpoints have their plans solved anew:

    python tools/analysis_tools/hierarchy.py plans --runs work_dirs/seed_0 work_dirs/seed_1
    python tools/analysis_tools/hierarchy.py plans --checkpoints work_dirs/seed_*/iter_300.pth \\
        --entropy-weights 0.002 0.005 0.01 0.02 0.05 0.1 0.2 0.5
"""
PARTS = """Which clusters make a class: tables of parts and wholes, a picture of them, and the tree with its classes.

    python tools/analysis_tools/hierarchy.py parts CONFIG CHECKPOINT --labels object
"""
SCORES = """Score every level, and the host's probe, against labels of every granularity that the data set has.

The demo scenes have three, COCO-Stuff 27 classes and 171 leaves, Cityscapes 27 classes and 7 categories, Potsdam 3
classes and 6 surfaces. Give others with --groups.

    python tools/analysis_tools/hierarchy.py scores CONFIG work_dirs/seed_*/iter_300.pth
"""
STABILITY = """Compare the clusters and the trees of several runs, such as seeds, by their predictions.

Labels are not needed.

    python tools/analysis_tools/hierarchy.py stability CONFIG work_dirs/seed_*/iter_300.pth
"""
RECOVERY = """Compare the learned tree with a known one, beside other trees on the same code.

Others: k-means on the codes, each level on its own; agglomerative clustering of the finest centres; the plan's parents
dealt at random. The known tree is that of the data set's labels of several granularities, or comes from --groups.

    python tools/analysis_tools/hierarchy.py recovery CONFIG work_dirs/seed_*/iter_300.pth
"""


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(
        description=name_commands(__doc__ or ''), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest='command', metavar='COMMAND', required=True, parser_class=RunParser)

    def add(name: str, text: str, analyse: Callable[[argparse.Namespace], str]) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=text.splitlines()[0], description=name_commands(text),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(analyse=analyse)
        return command

    plans = add('plans', PLANS, run_plans)
    plans.add_argument('--runs', nargs='+', default=[], metavar='DIR', help='work directories of trainings')
    plans.add_argument('--checkpoints', nargs='+', default=[], metavar='FILE', help='checkpoints with an OMH head')
    plans.add_argument('--entropy-weights', nargs='+', type=float, default=WEIGHTS, help='(default: %(default)s)')
    plans.add_argument('--out', default='work_dirs/hierarchy_plans', help='folder of results (default: %(default)s)')

    parts = add('parts', PARTS, run_parts)
    add_run_arguments(parts)
    parts.add_argument('--labels', metavar='NAME', help='granularity of the classes (default: the finest)')
    add_marginals_option(parts)
    add_analysis_options(parts, 'work_dirs/hierarchy_parts')
    add_label_options(parts)

    scores = add('scores', SCORES, run_scores)
    add_run_arguments(scores, several=True)
    add_analysis_options(scores, 'work_dirs/hierarchy_scores')
    add_label_options(scores)

    stability = add('stability', STABILITY, run_stability)
    add_run_arguments(stability, several=True)
    stability.add_argument('--permutations', type=int, default=1000, help='random parents behind the p-values')
    add_marginals_option(stability)
    add_analysis_options(stability, 'work_dirs/hierarchy_stability')

    recovery = add('recovery', RECOVERY, run_recovery)
    add_run_arguments(recovery, several=True)
    recovery.add_argument(
        '--control',
        nargs='+',
        metavar=('CONFIG', 'CHECKPOINT'),
        help='another model for comparison: the host alone, or with an OMH head that does not reach its features',
    )
    recovery.add_argument('--labels', nargs='+', metavar='NAME', help='granularity of each level, coarsest first')
    for name, text in RECOVERY_NUMBERS.items():
        recovery.add_argument(f'--{name}', type=int, help=text)
    add_marginals_option(recovery)
    add_analysis_options(recovery, 'work_dirs/hierarchy_recovery')
    add_label_options(recovery)
    return parser


def add_marginals_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--marginals``."""
    parser.add_argument(
        '--marginals',
        choices=MARGINALS,
        default=MARGINALS[0],
        help='mass of the clusters in the plans of the tree: the share of the pixels that each takes, or the same of '
        'all, which gives every parent the same number of children (default: %(default)s)',
    )


def run_plans(args: argparse.Namespace) -> str:
    """Analyse plans; the report."""
    from omh_mmseg.analysis.plans import analyse_plans

    checkpoints = [checkpoint_file(path) for path in args.checkpoints]
    return analyse_plans(args.out, args.runs, checkpoints, args.entropy_weights)


def run_parts(args: argparse.Namespace) -> str:
    """Analyse parts and wholes; the report."""
    from omh_mmseg.analysis.part_whole import analyse_parts
    from omh_mmseg.utils.config import read_config

    path, checkpoint = resolve_run(args.config, args.checkpoint)
    config = read_config(path, args.cfg_options)
    return analyse_parts(
        config, checkpoint, args.out, args.split, args.images, args.groups, args.labels, args.device, args.marginals
    )


def run_scores(args: argparse.Namespace) -> str:
    """Score the levels; the report."""
    from omh_mmseg.analysis.level_scores import analyse_scores
    from omh_mmseg.utils.config import read_config

    path, checkpoints = resolve_runs(args.config, args.checkpoints)
    config = read_config(path, args.cfg_options)
    return analyse_scores(config, checkpoints, args.out, args.split, args.images, args.groups, args.device)


def run_stability(args: argparse.Namespace) -> str:
    """Compare runs; the report."""
    from omh_mmseg.analysis.stability import analyse_stability
    from omh_mmseg.utils.config import read_config

    path, checkpoints = resolve_runs(args.config, args.checkpoints)
    config = read_config(path, args.cfg_options)
    return analyse_stability(
        config, checkpoints, args.out, args.split, args.images, args.permutations, args.device, args.marginals
    )


def run_recovery(args: argparse.Namespace) -> str:
    """Compare the learned tree with a known one; the report."""
    from omh_mmseg.analysis.recovery import RecoveryOptions, analyse_recovery
    from omh_mmseg.utils.config import read_config

    numbers = {name: getattr(args, name) for name in (key.replace('-', '_') for key in RECOVERY_NUMBERS)}
    given = {name: number for name, number in numbers.items() if number is not None}
    options = RecoveryOptions(args.split, args.images, args.groups, args.labels, marginals=args.marginals, **given)
    path, checkpoints = resolve_runs(args.config, args.checkpoints)
    config = read_config(path, args.cfg_options)
    control = None
    if args.control is not None:
        control_path, control_checkpoints = resolve_runs(args.control[0], args.control[1:])
        control = (read_config(control_path, args.cfg_options), control_checkpoints)
    return analyse_recovery(config, checkpoints, args.out, options, control, args.device)


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('hierarchy.py', build_parser(), lambda args: print(args.analyse(args)), argv)


if __name__ == '__main__':
    main()
