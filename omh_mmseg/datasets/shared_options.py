"""Top-level options that many parts of a config repeat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

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
