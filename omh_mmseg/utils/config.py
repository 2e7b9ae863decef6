"""Top-level options that many parts of a config repeat."""

from __future__ import annotations

import argparse
import copy
import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
SPREAD = ('data_root', 'num_classes', 'layout')
LISTS = dict(train_dataloader='train_list', val_dataloader='val_list', test_dataloader='val_list')


def apply_shared_options(cfg: Config, options: Mapping[str, Any]) -> Config:
    """Let ``--cfg-options data_root=... num_classes=...`` reach every data set, and ``num_classes`` the model.

    ``layout`` reaches every data set, too; ``train_list`` the ``ann_file`` of the training, ``val_list`` that of the
    scores.

    A config's own variables are copied into its parts when the file is read, so overriding the variable afterwards
    changes nothing. Only keys that stand in ``options`` are spread.

    Args:
        cfg: The config after ``merge_from_dict(options)``; changed in place.
        options: The overrides of the command line.

    Returns:
        ``cfg``.
    """
    for loader in LOADERS:
        for dataset in _datasets(cfg, loader):
            for key in SPREAD:
                if key in options and key in dataset:
                    dataset[key] = options[key]
            if LISTS[loader] in options and 'ann_file' in dataset:
                dataset['ann_file'] = options[LISTS[loader]]
    if 'num_classes' in options and 'model' in cfg:
        cfg.model.num_classes = options['num_classes']
    return cfg


def _datasets(cfg: Config, loader: str) -> Iterator[dict]:
    """Every innermost data set config of a loader."""
    pending = [(cfg.get(loader) or {}).get('dataset')]
    while pending:
        dataset = pending.pop()
        if not isinstance(dataset, dict):
            continue
        inner = [dataset['dataset']] if 'dataset' in dataset else dataset.get('datasets')
        if inner:
            pending.extend(inner)
        else:
            yield dataset


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--cfg-options``."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='settings that replace those of the config, e.g. model.decode_head.channels=90; lists as key="[a,b]"',
    )


def read_config(path: str, options: Mapping[str, Any] | None = None) -> Config:
    """Read a config file and replace settings, without touching a work directory.

    Raises:
        FileNotFoundError: No such config file; the message names similar ones beside it.
    """
    check_config(path)
    config = Config.fromfile(path)
    if options:
        config.merge_from_dict(dict(options))
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
    dataset = cfg.get('train_dataloader', {}).get('dataset', {})
    while isinstance(dataset, dict):
        if str(dataset.get('type')).rpartition('.')[2] == 'NeighbourPairs':
            return dataset
        dataset = dataset.get('dataset')
    raise ValueError('train_dataloader has no data set of type NeighbourPairs: this config needs no neighbour index')


SPLITS = ('train', 'val', 'test')


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
    dataset = loader['dataset']
    while isinstance(dataset.get('dataset'), dict):
        dataset = dataset['dataset']
    tested = config.test_dataloader['dataset']
    while isinstance(tested.get('dataset'), dict):
        tested = tested['dataset']
    return {**copy.deepcopy(dataset), 'pipeline': copy.deepcopy(tested['pipeline']), 'test_mode': True}
