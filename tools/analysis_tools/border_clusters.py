"""Say which clusters live on the border of the image, where it ends, instead of on what it shows.

A backbone that pads otherwise than its weights were trained with makes such clusters. Labels are not needed.

    python tools/analysis_tools/border_clusters.py CONFIG work_dirs/seed_*/iter_300.pth
    python tools/analysis_tools/border_clusters.py work_dirs/seed_0

Features without a model trained on them: `kmeans_baseline.py` says the same of k-means.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.analysis.border import analyse_border  # noqa: E402
from omh_mmseg.analysis.level_counts import add_analysis_options  # noqa: E402
from omh_mmseg.utils.config import read_config  # noqa: E402
from omh_mmseg.utils.text import message_of  # noqa: E402
from omh_mmseg.utils.work_dirs import RunParser, add_run_arguments, resolve_runs  # noqa: E402


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = RunParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser, several=True)
    add_analysis_options(parser, 'work_dirs/border_clusters')
    return parser


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    args = build_parser().parse_args(argv)
    try:
        path, checkpoints = resolve_runs(args.config, args.checkpoints)
        config = read_config(path, args.cfg_options)
        print(analyse_border(config, checkpoints, args.out, args.split, args.images, args.device))
    except (ImportError, OSError, ValueError) as error:
        sys.exit(f'border_clusters.py: {message_of(error)}')


if __name__ == '__main__':
    main()
