"""Reading and checking of config files and of what is given beside them."""

from __future__ import annotations

import argparse
import copy
import difflib
import inspect
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction
from mmengine.logging import MMLogger
from mmengine.runner import Runner

from omh_mmseg.checkpoint_files import TRUST
from omh_mmseg.utils.dataset_configs import find_dataset, innermost_datasets
from omh_mmseg.utils.shared_options import SHARED_OPTIONS, apply_shared_options, shared_parts
from omh_mmseg.utils.work_dirs import config_file

SPLITS = ('train', 'val', 'test')
OPTIONAL_KEYS = (
    'activation_checkpointing', 'compile', 'custom_imports', 'efficient_conv_bn_eval', 'find_unused_parameters',
    'model_wrapper_cfg', 'runner_type', 'sync_bn', 'test_pipeline', 'tta_model', 'tta_pipeline',
)  # fmt: skip
"""Top-level keys that mmengine and mmseg read beside the arguments of `Runner`."""
ALIKE = 0.85
"""Similarity from which a file's variable is taken for a misspelt shared option."""


class Trust(argparse.Action):
    """``--trust``: sets the environment's ``OMH_TRUST`` at once, which processes that are started later inherit."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, *_: Any) -> None:
        """Set it."""
        os.environ[TRUST] = '1'
        setattr(namespace, self.dest, True)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options`` and ``--trust``."""
    parser.add_argument(
        '--trust', nargs=0, action=Trust, default=False,
        help='read checkpoints as they are, and run the code that they may hold; for files whose makers you trust',
    )  # fmt: skip
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that replace those of the config, e.g. model.decode_head.channels=90; lists as key="[a,b]"',
    )


def read_config(path: str, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config file, or that of a work directory, and replace settings, without touching a work directory.

    Shared options such as ``data_root``, whether the file, its bases or ``options`` set them, reach every part.

    Raises:
        FileNotFoundError: No such config file; the message names similar ones beside it.
        ValueError: See `config_file`, `replace_settings` and `apply_shared_options`.
    """
    path = config_file(path)
    check_config(path)
    config = replace_settings(apply_shared_options(Config.fromfile(path)), options)
    _warn_of_variables(config, path)
    return config


def replace_settings(config: Config, options: Mapping[str, Any] | None) -> Config:
    """Replace settings of a config, those of several parts included; see `apply_shared_options`.

    Args:
        config: Changed in place.
        options: Values by dotted keys, as ``--cfg-options`` gives them.

    Returns:
        ``config``.

    Raises:
        ValueError: A key is below nothing that the config has or mmengine knows (names similar ones), or below a value
            that has no options.
    """
    if options:
        for key in options:
            _check_key(config, key)
        try:
            config.merge_from_dict(dict(options))
        except (IndexError, KeyError, TypeError) as error:
            raise ValueError(
                f'--cfg-options {" ".join(options)}: one of them is below a value that has no options, such as None '
                f'({error})'
            ) from error
        apply_shared_options(config, options)
    return config


def check_config(path: str) -> None:
    """Raise FileNotFoundError, with similar names, if ``path`` is not a config file."""
    if Path(path).is_file():
        return
    folder = Path(path).parent
    names = sorted(file.name for file in folder.glob('*.py')) if folder.is_dir() else []
    close = difflib.get_close_matches(Path(path).name, names, n=3)
    hint = f'; did you mean {" or ".join(str(folder / name) for name in close)}?' if close else ''
    raise FileNotFoundError(f'there is no config file {path} (looked from {Path.cwd()}){hint}')


def check_checkpoint(path: str) -> None:
    """Raise FileNotFoundError, naming what is there, if a local checkpoint does not exist; addresses pass."""
    if '://' in path or Path(path).is_file():
        return
    folder = Path(path).parent
    there = sorted(file.name for file in folder.glob('*.pth')) if folder.is_dir() else []
    hint = f'; {folder} holds {", ".join(there)}' if there else f'; {folder} holds no .pth file'
    raise FileNotFoundError(f'there is no checkpoint {path}{hint}')


def find_pairs_config(cfg: Config) -> dict:
    """The config of the ``NeighbourPairs`` data set inside ``train_dataloader``.

    Raises:
        ValueError: There is none, so that the config needs no index.
    """
    pairs = find_dataset(cfg.get('train_dataloader', {}).get('dataset'), 'NeighbourPairs')
    if pairs is None:
        raise ValueError(
            'train_dataloader has no data set of type NeighbourPairs: this config needs no neighbour index'
        )
    return pairs


def split_dataset(config: Config, split: str) -> dict[str, Any]:
    """Config of a split's labelled images as they are tested: without crops, pairs or training transforms.

    Raises:
        ValueError: Unknown split, or the config has none of this name.
    """
    if split not in SPLITS:
        raise ValueError(f'split must be one of {SPLITS}; got {split!r}')
    loader = config.get(f'{split}_dataloader')
    if loader is None:
        raise ValueError(f'the config has no {split}_dataloader')
    dataset, *_ = innermost_datasets(loader['dataset']).values()
    tested, *_ = innermost_datasets(config.test_dataloader['dataset']).values()
    return {**copy.deepcopy(dataset), 'pipeline': copy.deepcopy(tested['pipeline']), 'test_mode': True}


def known_keys(config: Config) -> set[str]:
    """Top-level keys that a config has, or that mmengine and mmseg would read."""
    arguments = set(inspect.signature(Runner).parameters) - {'cfg'}
    return arguments | set(OPTIONAL_KEYS) | set(config.keys())


def _check_key(config: Config, key: str) -> None:
    name = key.split('.')[0]
    known = known_keys(config)
    if name in known or (name in SHARED_OPTIONS and shared_parts(config, name)):
        return
    full = [path for path in _full_keys(config.to_dict()) if path.rpartition('.')[2] == name]
    near = [*full, *difflib.get_close_matches(name, sorted(known), n=3)]
    hint = f'; did you mean {" or ".join(near[:4])}?' if near else ''
    raise ValueError(f'--cfg-options {key}: the config has no {name}, so that it would reach nothing{hint}')


def _full_keys(settings: Any, start: str = '') -> Iterator[str]:
    for name, value in settings.items() if isinstance(settings, dict) else ():
        yield f'{start}{name}'
        yield from _full_keys(value, f'{start}{name}.')


def _warn_of_variables(config: Config, path: str) -> None:
    """One warning for each variable of a config file that reaches nothing and may have been meant to."""
    logger = MMLogger.get_current_instance()
    for name in config:
        close = difflib.get_close_matches(name, SHARED_OPTIONS, n=1, cutoff=ALIKE)
        if close and name not in SHARED_OPTIONS:
            logger.warning(f'{path}: {name} reaches nothing; did you mean {close[0]}?')
    tested = innermost_datasets((config.get('test_dataloader') or {}).get('dataset')).values()
    single = config.get('test_pipeline')
    if single is not None and any(dataset.get('pipeline', single) != single for dataset in tested):
        logger.warning(
            f'{path}: test_pipeline, which prepares single images, differs from test_dataloader.dataset.pipeline, '
            'which prepares those that are scored'
        )
