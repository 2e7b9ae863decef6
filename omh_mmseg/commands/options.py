"""Options that several commands share."""

from __future__ import annotations

import argparse
from typing import Any

from omh_mmseg.choices import SPLITS
from omh_mmseg.launchers import LAUNCHERS
from omh_mmseg.shipped import TRAINED
from omh_mmseg.switches import ACCEPT, TRUST, Switch
from omh_mmseg.utils.settings import Settings
from omh_mmseg.utils.work_dirs import is_checkpoint, stands_for_both


class RunParser(argparse.ArgumentParser):
    """Takes options between its positional arguments, also where some of these are optional."""

    _inside = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """See argparse."""
        if self._inside:
            return super().parse_known_args(args, namespace)
        self._inside = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._inside = False


def add_accept_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--accept-differences``."""
    parser.add_argument(
        '--accept-differences', action=Switch, const=ACCEPT,
        help='use the checkpoint with other settings (normalisation, size, backbone, classes) than those of its run',
    )  # fmt: skip


def add_run_arguments(parser: argparse.ArgumentParser, several: bool = False, required: bool = True) -> None:
    """Add ``--accept-differences``, ``config`` and ``checkpoint`` (or ``checkpoints``).

    In place of the latter two a work directory may stand: `omh_mmseg.utils.work_dirs.resolve_run` or `resolve_runs`
    makes files of them.
    """
    add_accept_option(parser)
    parser.add_argument(
        'config', metavar='CONFIG', nargs=None if required else '?',
        help='config file, name of a shipped one, or the work directory of a run, for both',
    )  # fmt: skip
    if several:
        parser.add_argument('checkpoints', metavar='CHECKPOINT', nargs='*',
                            help='checkpoints, or work directories of runs')  # fmt: skip
    else:
        parser.add_argument('checkpoint', metavar='CHECKPOINT', nargs='?',
                            help='checkpoint file or address, or the work directory of a run')  # fmt: skip


def add_prediction_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--accept-differences``, ``config``, ``checkpoint``, ``images`` and ``--demo``; see `read_places`."""
    add_run_arguments(parser, required=False)
    parser.add_argument('images', metavar='IMAGES', nargs='*', help='folders, searched recursively, and image files')
    parser.add_argument(
        '--demo', action='store_true',
        help='in place of CONFIG, CHECKPOINT and IMAGES: weights and drawn scenes of the library, no training',
    )  # fmt: skip


def read_places(args: argparse.Namespace) -> None:
    """Put the words of `add_prediction_arguments` into their places: one that stands for both needs no CHECKPOINT.

    Raises:
        ValueError: Words are missing, or left over beside ``--demo``, which needs none.
    """
    words = [word for word in (args.config, args.checkpoint, *args.images) if word is not None]
    if args.demo:
        if words:
            raise ValueError(f'--demo has a config, weights and images of its own: leave out {" ".join(words)}')
        args.config, args.checkpoint, args.images = TRAINED[-1], None, []
        return
    if len(words) < 2:
        raise ValueError('CONFIG, CHECKPOINT and IMAGES are needed, or a work directory and IMAGES, or --demo')
    alone = len(words) == 2 or (stands_for_both(words[0]) and not is_checkpoint(words[1]))
    args.config, args.checkpoint, args.images = words[0], None if alone else words[1], words[1 if alone else 2 :]


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options`` and ``--trust``."""
    parser.add_argument(
        '--trust', action=Switch, const=TRUST,
        help='read checkpoints as they are, and run the code that they may hold; for files whose makers you trust',
    )  # fmt: skip
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=Settings,
        metavar='KEY=VALUE',
        help='settings that replace those of the config, e.g. model.decode_head.channels=90; lists as key="[a,b]"; '
        'texts as they are, or in quotes of their own where a number stands',
    )


def add_launcher_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every command running a config shares with mmseg's: settings and launcher."""
    add_config_options(parser)
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='job launcher')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help='set by the launcher')


def add_analysis_options(parser: argparse.ArgumentParser, out: str) -> None:
    """Add what the commands share that predict every level: split, images, device, output and config options."""
    parser.add_argument('--split', choices=SPLITS, default='val', help='images to predict')
    parser.add_argument('--images', type=int, help='only the first so many of them')
    parser.add_argument('--out', default=out, help='folder of the tables and pictures (default: %(default)s)')
    parser.add_argument('--device', help='e.g. cpu or cuda:1; default: the first GPU, else the CPU')
    add_config_options(parser)


def add_label_options(parser: argparse.ArgumentParser) -> None:
    """Add the file of coarser labels."""
    parser.add_argument(
        '--groups',
        metavar='JSON',
        help='coarser classes of your own, coarsest granularity first: '
        '{"category": {"flat": ["road", "pavement"], "sky": ["sky"]}}',
    )
