"""What the analyses of a hierarchy start from: the predictions of all levels, counted over labelled images."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from omh_mmseg.analysis.k_means import collect_features
from omh_mmseg.analysis.plan_trees import DEFAULT_MARGINALS, plan_trees
from omh_mmseg.apis import init_model
from omh_mmseg.datasets.granularity import finest_labels
from omh_mmseg.evaluation.scores import confusion_matrix
from omh_mmseg.models.omh import OMHHead
from omh_mmseg.models.prediction.cluster_bias import ClusterBias, clusterings
from omh_mmseg.models.segmentors import UnsupervisedSegmentor
from omh_mmseg.registry import DATASETS
from omh_mmseg.structures.granularity import Granularity
from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.transport import Hierarchy
from omh_mmseg.utils.config import read_config, split_dataset

PROBE = 'probe'


@dataclass(frozen=True)
class LevelCounts:
    """Pixels of one model's predictions.

    Attributes:
        counts: Per level, coarsest first, the pixels of each cluster and finest label, (K_l, labels).
        overlaps: Per level pair the pixels of each coarser and finer cluster, (K_l, K_{l+1}).
        probe: Those of the host's cluster probe, (K, labels).
        trees: Of the levels, by the marginals of their plans; see `plan_trees`.
    """

    counts: list[np.ndarray]
    overlaps: list[np.ndarray]
    probe: np.ndarray
    trees: dict[str, Hierarchy] = field(default_factory=dict)

    @property
    def hierarchy(self) -> Hierarchy:
        """The tree of the default marginals."""
        return self.trees[DEFAULT_MARGINALS]

    @property
    def heads(self) -> dict[str, np.ndarray]:
        """Counts by head: ``probe``, ``level1``, ``level2``, ..."""
        return {PROBE: self.probe} | {f'level{number}': table for number, table in enumerate(self.counts, start=1)}


@dataclass(frozen=True)
class CountedLevels:
    """Result of `count_levels`.

    Attributes:
        models: One entry per model.
        joint: For each pair of models, by their numbers, per level the pixels of each pair of clusters.
    """

    models: list[LevelCounts]
    joint: dict[tuple[int, int], list[np.ndarray]] = field(default_factory=dict)


def run_names(checkpoints: Sequence[str]) -> list[str]:
    """Short distinct names of checkpoints: their folders, with the file where one folder holds several."""
    folders = [Path(path).resolve().parent.name for path in checkpoints]
    if len(set(folders)) == len(folders):
        return folders
    names = [f'{folder}/{Path(path).stem}' for folder, path in zip(folders, checkpoints)]
    return names if len(set(names)) == len(names) else [os.fspath(path) for path in checkpoints]


def load_levels(
    config: str | Config, checkpoint: str, device: str | None = None, options: Mapping[str, Any] | None = None
) -> UnsupervisedSegmentor:
    """A trained model that predicts every level, without CRF.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The weights are not those of the config's model.
    """
    if isinstance(config, str):
        config = read_config(config, options)
    model = init_model(copy.deepcopy(config), checkpoint, device)
    model.use_test_cfg({**model.test_cfg, 'levels': None, 'crf': None})
    return model


def labelled_loader(
    config: Config, split: str = 'val', images: int | None = None, groups: str | None = None
) -> tuple[DataLoader, tuple[Granularity, ...]]:
    """The images of a split with their finest labels, and what these can be merged to, coarsest first.

    Raises:
        ValueError: Unknown split, ``images`` below 1, or wrong groups.
    """
    init_default_scope(config.get('default_scope', 'mmseg'))
    dataset, granularities = finest_labels(split_dataset(config, split), groups)
    if images is not None:
        if images < 1:
            raise ValueError(f'at least one image is needed; got images={images}')
        dataset['indices'] = images
    return _loader(DATASETS.build(dataset), config), granularities


@torch.no_grad()
def count_levels(
    groups: Sequence[Sequence[UnsupervisedSegmentor]], loader: DataLoader, num_labels: int, between: bool = False
) -> CountedLevels:
    """Predict images with several models and count which clusters meet which labels and which other clusters.

    Args:
        groups: Models; those of a group have the same code, which is computed once. All need an OMH head.
        loader: Single images or batches, of `labelled_loader`.
        num_labels: Number of finest labels.
        between: Also count the clusters of each pair of models at each level.

    Returns:
        One entry per model, in the order of the flattened groups. Pixels without a label count nowhere; images without
        any label count in the overlaps of clusters alone.

    Raises:
        ValueError: A model has no OMH head, or with ``between`` another number of levels than the first one.
    """
    models = [model for group in groups for model in group]
    heads = [model.omh_head for model in models if model.omh_head is not None]
    if len(heads) < len(models):
        raise ValueError('every model needs an OMH head; the config sets model.omh_head')
    sizes = [list(head.level_sizes) for head in heads]
    if between and len(set(map(len, sizes))) > 1:
        raise ValueError(f'models of different numbers of levels do not compare: {sizes}')
    result = [
        LevelCounts(
            counts=[np.zeros((size, num_labels), np.int64) for size in level_sizes],
            overlaps=[np.zeros(pair, np.int64) for pair in pairwise(level_sizes)],
            probe=np.zeros((len(model.cluster_probe.centres), num_labels), np.int64),
        )
        for model, head, level_sizes in zip(models, heads, sizes)
    ]
    pairs = combinations(range(len(models)), 2) if between else []
    joint = {(a, b): [np.zeros(size, np.int64) for size in zip(sizes[a], sizes[b])] for a, b in pairs}
    for batch in track(loader, 'segmenting at every level'):
        # One list of maps per image: probe first, then the levels; of every model.
        maps: list[list[list[Tensor]]] = []
        for group in groups:
            data = group[0].data_preprocessor(batch, False)
            samples = data['data_samples']
            code = group[0].prediction_code(data['inputs'])
            for model, level_sizes in zip(group, sizes[len(maps) :]):
                predicted = model.predict_from_code(code, data['inputs'], samples)
                fields = ['pred_sem_seg', *(f'pred_level{level}' for level in range(1, len(level_sizes) + 1))]
                maps.append([[sample.get(name).data[0] for name in fields] for sample in predicted])
        for image, sample in enumerate(samples):
            labels = sample.gt_sem_seg.data[0].to(maps[0][image][0].device) if 'gt_sem_seg' in sample else None
            known = slice(None) if labels is None else labels != IGNORED_LABEL
            chosen = [[clusters[known].flatten() for clusters in model_maps[image]] for model_maps in maps]
            for total, (probe, *levels) in zip(result, chosen):
                if labels is not None:
                    for table, clusters in zip([total.probe, *total.counts], [probe, *levels]):
                        table += confusion_matrix(clusters, labels[known].flatten(), *table.shape)
                for table, (coarse, fine) in zip(total.overlaps, pairwise(levels)):
                    table += confusion_matrix(coarse, fine, len(table), table.shape[1], ignore_index=-1)
            for (first, second), tables in joint.items():
                for table, clusters, others in zip(tables, chosen[first][1:], chosen[second][1:]):
                    table += confusion_matrix(clusters, others, len(table), table.shape[1], ignore_index=-1)
    for head, total in zip(heads, result):
        total.trees.update(plan_trees(head, total.overlaps))
    return CountedLevels(result, joint)


def collect_codes(
    model: UnsupervisedSegmentor, config: Config, split: str = 'train', images: int = 1000, per_image: int = 100,
    seed: int = 0,
) -> np.ndarray:  # fmt: skip
    """Unit codes at random positions of random images, as a prediction sees them.

    Args:
        model: See `load_levels`.
        config: Of its data.
        split: Of the images; labels are not used.
        images: At most so many.
        per_image: Positions of each.
        seed: Of both draws.

    Returns:
        (codes, D), float32.
    """
    generator = torch.Generator().manual_seed(seed)
    dataset = DATASETS.build(split_dataset(config, split))
    chosen = torch.randperm(len(dataset), generator=generator)[:images].tolist()
    loader = _loader(Subset(dataset, chosen), config)
    return collect_features(model, loader, per_image, generator, model.prediction_code, 'codes')


def with_centres(
    model: UnsupervisedSegmentor, centres: Sequence[Tensor], entropy_weight: float
) -> UnsupervisedSegmentor:
    """The same model with other centres of its levels; everything else is shared with the given one.

    Args:
        model: With or without an OMH head.
        centres: (K_l, D) per level, coarsest first.
        entropy_weight: Lambda of the plans between them.
    """
    sizes = list(map(len, centres))
    head = OMHHead(centres[0].shape[1], sizes[0], level_sizes=sizes, plan=dict(entropy_weight=entropy_weight))
    for parameter, level in zip(head.centres, centres):
        parameter.data.copy_(level)
    variant = copy.copy(model)
    # A shallow copy shares the table of sub-modules, too.
    variant.__dict__['_modules'] = dict(model._modules)
    variant.omh_head = head.to(next(model.cluster_probe.parameters()).device).eval()
    # The bias of a refit belongs to the centres that it came with.
    variant.cluster_bias = ClusterBias({field: len(found) for field, found in clusterings(variant).items()})
    variant.use_test_cfg({**model.test_cfg, 'levels': None})
    return variant


def _loader(dataset: Any, config: Config) -> DataLoader:
    return DataLoader(dataset, batch_size=config.val_dataloader.batch_size, collate_fn=pseudo_collate)
