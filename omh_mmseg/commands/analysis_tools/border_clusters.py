"""Say which clusters live on the border of the image, where it ends, instead of on what it shows.

A backbone that pads otherwise than its weights were trained with makes such clusters. Labels are not needed.

    python tools/analysis_tools/border_clusters.py CONFIG work_dirs/seed_*/iter_300.pth
    python tools/analysis_tools/border_clusters.py work_dirs/seed_0

Features without a model trained on them: `kmeans_baseline.py` says the same of k-means.
"""

from __future__ import annotations

import argparse

from omh_mmseg.commands.options import RunParser, add_analysis_options, add_run_arguments
from omh_mmseg.commands.start import start
from omh_mmseg.shipped import name_commands
from omh_mmseg.utils.work_dirs import resolve_runs


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = RunParser(description=name_commands(__doc__ or ''), formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser, several=True)
    add_analysis_options(parser, 'work_dirs/border_clusters')
    return parser


def run(args: argparse.Namespace) -> None:
    """Analyse and print."""
    from omh_mmseg.analysis.border import analyse_border
    from omh_mmseg.utils.config import read_config

    path, checkpoints = resolve_runs(args.config, args.checkpoints)
    config = read_config(path, args.cfg_options)
    print(analyse_border(config, checkpoints, args.out, args.split, args.images, args.device))


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('border_clusters.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
