"""Make the neighbour index that a config asks for."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.dist import all_gather_object, barrier, get_dist_info, is_main_process
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from torch import nn
from torch.utils.data import DataLoader

from omh_mmseg.datasets.fingerprint import (
    DATASET_PARTS,
    DROPOUT_PART,
    MODEL_PARTS,
    compare_fingerprints,
    dataset_fingerprint,
    model_fingerprint,
)
from omh_mmseg.datasets.neighbours.features import pooled_features
from omh_mmseg.datasets.neighbours.index import (
    PLACEHOLDER,
    NeighbourIndex,
    command_to_remake,
    resolve_index_path,
    write_index,
)
from omh_mmseg.datasets.neighbours.pairs import NeighbourPairs
from omh_mmseg.datasets.neighbours.search import check_arguments, neighbour_blocks, search_memory
from omh_mmseg.datasets.neighbours.store import (
    COMMIT_SECONDS,
    PartialIndex,
    RowFile,
    discard_partial,
    partial_progress,
)
from omh_mmseg.preparation.features import cached_train_set
from omh_mmseg.registry import DATASETS, MODELS
from omh_mmseg.structures.frozen_inputs import FrozenInputs, Inputs, pixels
from omh_mmseg.structures.provenance import ProvenanceError
from omh_mmseg.utils.config import find_pairs_config
from omh_mmseg.utils.devices import check_device
from omh_mmseg.utils.files import replaced_when_complete
from omh_mmseg.utils.progress import progress_bar
from omh_mmseg.utils.ranks import from_first, on_first

COLUMNS = 30
"""Of an index, the item itself included."""
WAIT_SECONDS = 0.5


def prepare_neighbours(
    cfg: Config, force: bool = False, if_missing: bool = False, progress: bool = True, **options: Any
) -> tuple[Path, bool]:
    """Compute and store the neighbour index of a config, unless a valid one is there.

    The features are the frozen backbone's in eval mode, averaged over the map. They and the neighbours found so far are
    kept in the folder ``<index>.partial``: an interrupted call is continued by the next one, and the memory does not
    grow with the number of images. The index appears only when complete; the folder is deleted then. Where the config
    has its `FeatureCacheHook` switched on, the features are those of the cache, which is filled first.

    Processes of a launcher, which all call this, deal out the batches of images and the blocks of the search among
    them; rank 0 writes. Where its folder is must be the same file for all of them. The index is that of one process.

    Args:
        cfg: See `IndexJob`.
        force: Replace an index that is there, whatever it was made from.
        if_missing: Leave an index that fits this config alone even with ``force``.
        progress: Draw progress bars on stderr.
        **options: See `IndexJob`.

    Returns:
        Path of the index, and whether it was computed now.

    Raises:
        FileExistsError: The file there belongs to other images, weights or settings and ``force`` is not given.
        ValueError: See `IndexJob`.
        ModuleNotFoundError: Likewise.
        OSError: The disk has no room for the features.
    """
    job = IndexJob(cfg, **options)
    _check_ranks(job)
    there = from_first(job.path.exists)
    if there and from_first(lambda: _is_current(job, force)) and (if_missing or not force):
        if is_main_process():
            discard_partial(job.path)
        return job.path, False
    return job.path, _make(job, cfg, progress, replace=there)


def complete_pairs(pairs: NeighbourPairs, cfg: Config, backbone: nn.Module, build: bool = True) -> None:
    """Give a data set of pairs the index of a model; without one there, make it first.

    Where several runs ask for the same index, one makes it and the others wait for it; the processes of one run share
    the work, and all call this. An interrupted call is continued by the next one, see `prepare_neighbours`.

    Args:
        pairs: Completely initialised.
        cfg: Of the model.
        backbone: With its weights, on the device to compute on.
        build: False leaves an absent index absent.

    Raises:
        FileNotFoundError: There is no index and ``build`` is False; the message holds the command that makes it.
        ValueError: The index at that path belongs to other images.
        ProvenanceError: It belongs to another backbone, weights or normalisation.
        OSError: The disk has no room for the features.
    """
    columns = max(COLUMNS, pairs.num_neighbours + 1)
    device = str(next(iter(backbone.state_dict().values()), torch.empty(0)).device)
    job = IndexJob(cfg, columns, device=device, pairs=pairs, backbone=backbone)
    _check_ranks(job)
    waiting = False
    while build and not from_first(job.path.exists):
        try:
            _make(job, cfg, progress=True)
        except BlockingIOError:
            if not waiting:
                MMLogger.get_current_instance().info(f'waiting for another process that makes {job.path}')
            waiting = True
            time.sleep(WAIT_SECONDS)
    if pairs.index_path != job.path:
        pairs.use_index(job.path)
    differences = compare_fingerprints(pairs.fingerprint, job.fingerprint, MODEL_PARTS)
    if differences:
        listed = '\n  '.join(differences)
        raise ProvenanceError(
            f'the neighbour index {job.path} was made with another backbone:\n  {listed}\n'
            f'Make it anew with\n    {command_to_remake(pairs.fingerprint, cfg.filename)}\n'
            f'or set another `index` path in the config; with {PLACEHOLDER} in it each backbone has its own'
        )


def _check_ranks(job: IndexJob) -> None:
    if any(fingerprint != job.fingerprint for fingerprint in all_gather_object(job.fingerprint)):
        raise ValueError('the processes see different images or weights')


def _make(job: IndexJob, cfg: Config, progress: bool, replace: bool = False) -> bool:
    """Compute an index, unless another process has made it just now.

    Raises:
        BlockingIOError: Another process is making it.
    """
    partial, progress = PartialIndex(job.path, job.fingerprint, job.items), progress and is_main_process()
    with ExitStack() as stack:
        from_first(lambda: stack.enter_context(partial).folder)
        made_meanwhile = from_first(lambda: job.path.exists() and not replace)
        if not made_meanwhile:
            features = _complete_features(job, partial, cfg, progress)
            neighbours = _complete_neighbours(job, partial, features, progress)
        if is_main_process():
            if not made_meanwhile:
                with replaced_when_complete(job.path) as file:
                    write_index(file, neighbours, job.fingerprint)
                MMLogger.get_current_instance().info(
                    f'neighbour index of {job.items} items written to {job.path.resolve()}'
                )
            partial.remove()
        barrier()
    return not made_meanwhile


def describe_neighbours(cfg: Config, **options: Any) -> str:
    """What :func:`prepare_neighbours` would do with these arguments, as text; nothing is computed or written.

    Args:
        cfg: See `IndexJob`.
        **options: See `IndexJob`.

    Returns:
        The path, what is there already, the number of items, and the disk space and memory that are needed.
    """
    job = IndexJob(cfg, **options)
    if not job.path.exists():
        state = 'absent'
    else:
        problems = _problems(job)
        state = 'there and valid' if not problems else 'there, but another one:\n  ' + '\n  '.join(problems)
    done = partial_progress(job.path, job.fingerprint)
    if any(done):
        state += f'; an interrupted run has the features of {done[0]} items and the neighbours of {done[1]}'
    channels = getattr(job.backbone, 'out_channels', None)
    if isinstance(channels, int):
        needs = [f'{job.disk(channels) / 2**30:.2f} GiB on disk meanwhile']
        if job.search == 'matmul':
            needs.append(f'{search_memory(job.chunk_size, channels) / 2**20:.0f} MiB of memory for the search')
    else:
        needs = ['disk space unknown, since the backbone does not say its out_channels']
    return (
        f'neighbour index {job.path.resolve()}: {state}\n{job.items} items, {job.columns} columns, '
        f'{", ".join(needs)}'
    )


class IndexJob:
    """An index to be made: data set and backbone are built, and the options checked, before any work.

    Args:
        cfg: With ``model.backbone``, ``model.data_preprocessor`` and a ``NeighbourPairs`` data set.
        num_neighbours: Columns of the index, the item itself included.
        chunk_size: Rows per block of the search; None for 1024 on a CPU and 8192 elsewhere. See
            :func:`omh_mmseg.datasets.neighbours.search.search_memory` for the memory that it takes.
        device: Where to compute.
        train_mode_dropout: Channel dropout of the features; 0.1 makes an index as the reference does
            (docs/methods/data.md 5.7).
        dropout_seed: Of that dropout.
        search: ``'matmul'`` or ``'faiss'``, both exact.
        pairs: The data set of pairs, completely initialised, in place of that of the config.
        backbone: With its weights, in place of that of the config with its own.

    Raises:
        ValueError: The device is not available, or an option is out of range.
        ModuleNotFoundError: ``search='faiss'`` without that library.
    """

    def __init__(
        self,
        cfg: Config,
        num_neighbours: int = COLUMNS,
        chunk_size: int | None = None,
        device: str = 'cpu',
        train_mode_dropout: float = 0.0,
        dropout_seed: int = 0,
        search: str = 'matmul',
        pairs: NeighbourPairs | None = None,
        backbone: nn.Module | None = None,
    ) -> None:
        check_device(device)
        if not 0 <= train_mode_dropout < 1:
            raise ValueError(f'train_mode_dropout must lie in [0, 1), got {train_mode_dropout}; 0.1 is the reference')
        init_default_scope(cfg.get('default_scope', 'mmseg'))
        if pairs is None:
            pairs_cfg = find_pairs_config(cfg)
            index, self.dataset = pairs_cfg['index'], DATASETS.build(pairs_cfg['dataset'])
            self.dataset.full_init()
        else:
            index, self.dataset = pairs.index, pairs.dataset
        if chunk_size is None:
            chunk_size = 1024 if torch.device(device).type == 'cpu' else 8192
        check_arguments(search, len(self.dataset), num_neighbours, chunk_size)
        self.columns = min(num_neighbours, len(self.dataset))
        self.chunk_size, self.device, self.search = chunk_size, device, search
        self.preprocessor_cfg = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}
        self.backbone: Any = backbone
        if backbone is None:
            self.backbone = MODELS.build(cfg.model.backbone)
            if hasattr(self.backbone, 'init_weights'):
                self.backbone.init_weights()
        self.backbone.eval()
        images = dataset_fingerprint(self.dataset) if pairs is None else pairs.images
        self.fingerprint = images | model_fingerprint(self.backbone, cfg.model.backbone, self.preprocessor_cfg)
        if train_mode_dropout:
            self.fingerprint[DROPOUT_PART] = dict(probability=float(train_mode_dropout), seed=dropout_seed)
        self.path = resolve_index_path(index, self.fingerprint)

    @property
    def items(self) -> int:
        """N, the number of images."""
        return len(self.dataset)

    def disk(self, channels: int) -> int:
        """Bytes of the features, the neighbours and the index, which cannot be longer than the neighbours."""
        return 4 * self.items * (channels + 2 * self.columns)


def _complete_features(job: IndexJob, partial: PartialIndex, cfg: Config, progress: bool) -> RowFile:
    """The features of all items, those of an earlier run taken over."""
    done = from_first(lambda: len(partial.features or ()))
    if done < job.items:
        if done and is_main_process():
            MMLogger.get_current_instance().info(f'continuing {partial.folder} after the features of {done} items')
        preprocessor = MODELS.build(job.preprocessor_cfg).to(job.device)
        dataset = cached_train_set(cfg, job.dataset, job.backbone, preprocessor, progress) or job.dataset
        loader = cfg.train_dataloader
        starts = range(done, job.items, loader.get('batch_size', 16))
        blocks = _feature_blocks(job, dataset, preprocessor, starts, loader.get('num_workers', 0))
        features = partial.features
        with progress_bar(progress) as bar:
            task = bar.add_task('features of the images', total=job.items, completed=done)
            for block in on_first(blocks, len(starts)):
                if features is None or features.columns != block.shape[1]:
                    features = partial.start_features(block.shape[1])
                    _check_disk(partial.folder, job, block.shape[1])
                features.append(block)
                partial.commit(COMMIT_SECONDS)
                bar.advance(task, len(block))
        if is_main_process():
            partial.commit()
    path, columns = from_first(lambda: _place_of(partial.features))
    # Other ranks open the file now that it is complete.
    return partial.features or RowFile(path, columns, '<f4', job.items)


def _place_of(file: RowFile | None) -> tuple[Path, int]:
    if file is None:
        raise ValueError('there are no images to compute features of')
    return file.path.absolute(), file.columns


def _feature_blocks(
    job: IndexJob, dataset: Any, preprocessor: nn.Module, starts: range, num_workers: int
) -> Iterator[np.ndarray]:
    """Features of this process's share of the batches that begin at these items."""
    dropout = job.fingerprint.get(DROPOUT_PART) or dict(probability=0.0, seed=0)
    backbone = job.backbone.to(job.device)
    rank, ranks = get_dist_info()
    batches: list[Any] = [range(start, min(start + starts.step, job.items)) for start in starts[rank::ranks]]
    loader = DataLoader(dataset, batch_sampler=batches, num_workers=num_workers, collate_fn=pseudo_collate)

    def encode(inputs: Inputs) -> torch.Tensor:
        known = inputs.features if isinstance(inputs, FrozenInputs) else None
        return backbone(pixels(inputs)) if known is None else known

    for batch, data in zip(batches, loader):
        inputs = preprocessor(dict(inputs=data['inputs']), False)['inputs']
        for features in pooled_features(encode, [inputs], batch[0], dropout['probability'], dropout['seed']):
            yield features.numpy()


def _complete_neighbours(job: IndexJob, partial: PartialIndex, features: RowFile, progress: bool) -> RowFile:
    """The neighbours of all items, those of an earlier run taken over; on rank 0 alone they are there."""
    settings = dict(search=job.search, chunk_size=job.chunk_size, device=torch.device(job.device).type)
    neighbours: Any = partial.start_neighbours(job.columns, settings) if is_main_process() else None
    done = from_first(lambda: len(neighbours))
    if done and is_main_process():
        MMLogger.get_current_instance().info(f'continuing {partial.folder} after the neighbours of {done}')
    turn = get_dist_info()
    mine = neighbour_blocks(features, job.columns, job.chunk_size, job.device, job.search, done, turn)
    with progress_bar(progress) as bar:
        task = bar.add_task('nearest neighbours', total=job.items, completed=done)
        for block in on_first(mine, len(range(done, job.items, job.chunk_size))):
            neighbours.append(block)
            partial.commit(COMMIT_SECONDS)
            bar.advance(task, len(block))
    if is_main_process():
        partial.commit()
    return neighbours


def _check_disk(folder: Path, job: IndexJob, channels: int) -> None:
    free, needed = shutil.disk_usage(folder).free, job.disk(channels)
    if free < needed:
        raise OSError(
            f'making the index {job.path} needs {needed / 2**30:.2f} GiB in {folder.parent} for {job.items} features '
            f'of {channels} channels, only {free / 2**30:.2f} GiB are free; make room or set another `index` path'
        )


def _problems(job: IndexJob) -> list[str]:
    """Why the file at the index path is not the index that is asked for; empty if it is."""
    try:
        stored = NeighbourIndex.load(job.path)
    except ValueError as error:
        return [str(error).partition('. Make it anew')[0]]
    problems = compare_fingerprints(stored.fingerprint, job.fingerprint, (*DATASET_PARTS, *MODEL_PARTS, DROPOUT_PART))
    if stored.neighbours.shape[1] < job.columns:
        problems.append(f'columns: the index has {stored.neighbours.shape[1]}, {job.columns} are asked for')
    return problems


def _is_current(job: IndexJob, force: bool) -> bool:
    """Whether the file at the index path fits; FileExistsError if it does not and may not be replaced."""
    problems = _problems(job)
    if problems and not force:
        listed = '\n  '.join(problems)
        raise FileExistsError(
            f'{job.path} exists and is another index:\n  {listed}\nKeep it and set another `index` path in the config, '
            f'or replace it with\n    {command_to_remake(job.fingerprint)}'
        )
    return not problems
