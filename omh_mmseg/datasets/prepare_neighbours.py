"""Make the neighbour index that a config asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import Tensor, nn
from torch.utils.data import DataLoader

from omh_mmseg.datasets.neighbour_index import (
    DATASET_PARTS,
    MODEL_PARTS,
    NeighbourIndex,
    build_neighbour_index,
    compare_fingerprints,
    dataset_fingerprint,
    model_fingerprint,
    pooled_features,
    resolve_index_path,
    suggested_command,
)
from omh_mmseg.files import replaced_when_complete
from omh_mmseg.registry import DATASETS, MODELS


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


def prepare_neighbours(
    cfg: Config,
    num_neighbours: int = 30,
    chunk_size: int = 1024,
    device: str = 'cpu',
    force: bool = False,
    if_missing: bool = False,
    progress: bool = True,
) -> tuple[Path, bool]:
    """Compute and store the neighbour index of a config, unless a valid one is there.

    The features are the frozen backbone's in eval mode, averaged over the map. The file appears only when complete.

    Args:
        cfg: With ``model.backbone``, ``model.data_preprocessor`` and a ``NeighbourPairs`` data set.
        num_neighbours: Columns of the index, the item itself included.
        chunk_size: Rows per block of the search.
        device: Where to compute.
        force: Replace an index that is there, whatever it was made from.
        if_missing: Leave an index that fits this config alone even with ``force``.
        progress: Draw progress bars on stderr.

    Returns:
        Path of the index, and whether it was computed now.

    Raises:
        FileExistsError: The file there belongs to other images, weights or settings and ``force`` is not given.
    """
    _check_device(device)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    pairs = find_pairs_config(cfg)
    dataset = DATASETS.build(pairs['dataset'])
    dataset.full_init()
    preprocessor_cfg = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
    backbone = MODELS.build(cfg.model.backbone)
    if hasattr(backbone, 'init_weights'):
        backbone.init_weights()
    backbone.eval()
    fingerprint = dataset_fingerprint(dataset) | model_fingerprint(backbone, cfg.model.backbone, preprocessor_cfg)
    path = resolve_index_path(pairs['index'], fingerprint)
    needed = min(num_neighbours, len(dataset))
    if path.exists() and _is_current(path, fingerprint, needed, force) and (if_missing or not force):
        return path, False
    preprocessor = MODELS.build(preprocessor_cfg).to(device)
    with replaced_when_complete(path) as file:
        batches = _batches(dataset, preprocessor, cfg.train_dataloader)
        features = pooled_features(backbone.to(device), batches, len(dataset), progress)
        neighbours = build_neighbour_index(features, num_neighbours, chunk_size, device, progress)
        NeighbourIndex(neighbours, fingerprint).write(file)
    MMLogger.get_current_instance().info(f'neighbour index of {len(dataset)} items written to {path.resolve()}')
    return path, True


def _is_current(path: Path, fingerprint: dict[str, Any], columns: int, force: bool) -> bool:
    """Whether the file at ``path`` fits; FileExistsError if it does not and may not be replaced."""
    try:
        stored = NeighbourIndex.load(path)
    except ValueError as error:
        problems = [str(error).partition('. Make it anew')[0]]
    else:
        problems = compare_fingerprints(stored.fingerprint, fingerprint, (*DATASET_PARTS, *MODEL_PARTS))
        if stored.neighbours.shape[1] < columns:
            problems.append(f'columns: the index has {stored.neighbours.shape[1]}, {columns} are asked for')
    if problems and not force:
        listed = '\n  '.join(problems)
        raise FileExistsError(
            f'{path} exists and is another index:\n  {listed}\nKeep it and set another `index` path in the config, or '
            f'replace it with\n    {suggested_command("--force")}'
        )
    return not problems


def _batches(dataset: Any, preprocessor: nn.Module, loader_cfg: dict) -> Iterator[Tensor]:
    loader = DataLoader(
        dataset,
        batch_size=loader_cfg.get('batch_size', 16),
        num_workers=loader_cfg.get('num_workers', 0),
        collate_fn=pseudo_collate,
    )
    for data in loader:
        yield preprocessor(dict(inputs=data['inputs']), False)['inputs']


def _check_device(device: str) -> None:
    if torch.device(device).type == 'cuda' and not torch.cuda.is_available():
        raise ValueError(f'device {device!r} is not available here; use --device cpu')
