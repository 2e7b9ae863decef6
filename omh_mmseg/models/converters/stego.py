"""STEGO's published Lightning checkpoints as checkpoints of our `STEGO`.

Source: docs/methods/features.md 2, docs/methods/stego.md 4.3.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from omh_mmseg.models.converters.dino import (
    ConvertedHost,
    TransformerShape,
    check_shapes,
    listed,
    sized,
    split_backbone,
)
from omh_mmseg.models.converters.foreign_pickle import plain_settings
from omh_mmseg.registry import DATASETS

BACKBONE = 'net.model.'
LAYERS = {
    'net.cluster1.0.': 'decode_head.linear.',
    'net.cluster2.0.': 'decode_head.nonlinear.0.',
    'net.cluster2.2.': 'decode_head.nonlinear.2.',
    'linear_probe.': 'linear_probe.classifier.',
}
# Of the two cluster probes the reference trains and evaluates `cluster_probe`; `train_cluster_probe` is never used.
# The decoder belongs to a reconstruction loss of weight 0.
LEFT_OUT = ('train_cluster_probe.', 'decoder.')
CLUSTERS = 'cluster_probe.clusters'
SAME_OPTIONS = {
    'batch_size': 'train_dataloader.batch_size',
    'num_neighbors': 'train_dataloader.dataset.num_neighbours',
    'max_steps': 'train_cfg.max_iters',
    'lr': 'optim_wrapper.optimizer.lr',
    'pos_intra_weight': 'model.correlation_loss.self_weight',
    'pos_intra_shift': 'model.correlation_loss.self_shift',
    'pos_inter_weight': 'model.correlation_loss.knn_weight',
    'pos_inter_shift': 'model.correlation_loss.knn_shift',
    'neg_inter_weight': 'model.correlation_loss.rand_weight',
    'neg_inter_shift': 'model.correlation_loss.rand_shift',
    'feature_samples': 'model.correlation_loss.feature_samples',
    'neg_samples': 'model.correlation_loss.negative_samples',
    'pointwise': 'model.correlation_loss.pointwise',
    'zero_clamp': 'model.correlation_loss.zero_clamp',
    'stabalize': 'model.correlation_loss.stabilize',
    'stabilize': 'model.correlation_loss.stabilize',
}
# Settings of the reference that our STEGO fixes, with the value that it fixes them at.
FIXED = {
    'arch': 'dino',
    'continuous': True,
    'dropout': True,
    'use_true_labels': False,
    'use_salience': False,
    'correspondence_weight': 1.0,
    'rec_weight': 0.0,
    'aug_alignment_weight': 0.0,
    'crf_weight': 0.0,
    'reset_probe_steps': None,
}
SHOWN = (
    'dataset_name', 'dir_dataset_name', 'n_classes', 'model_type', 'dino_patch_size', 'dino_feat_type',
    'pretrained_weights', 'projection_type', 'dim', 'res', 'loader_crop_type', 'crop_type', 'crop_ratio',
    'extra_clusters', *SAME_OPTIONS, *FIXED,
)  # fmt: skip
# The last part of our configs' names, and the data set's class.
DATA = {
    'cocostuff27': ('coco', 'COCOStuff27'),
    'cityscapes': ('cityscapes', 'Cityscapes27'),
    'potsdam': ('potsdam', 'Potsdam3'),
}
OPTIMIZERS = 3


@dataclass(frozen=True)
class ConvertedSTEGO(ConvertedHost):
    """A converted checkpoint.

    Attributes:
        settings: What the file says of its run, as plain values; empty if it says nothing.
    """

    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> dict[str, Any]:
        """Settings, and classes and colours where the data set is one of ours."""
        classes = {} if self.dataset_meta is None else dict(dataset_meta=self.dataset_meta)
        return dict(settings=self.settings, **classes)

    @property
    def model_options(self) -> dict[str, Any]:
        """Config options that the weights need, where configs of STEGO may say otherwise."""
        options = super().model_options
        if 'decode_head.nonlinear.0.weight' not in self.state_dict:
            options['model.decode_head.nonlinear'] = False
        if self.settings.get('dino_feat_type') == 'KK':
            options['model.backbone.feature'] = 'keys'
        return options

    @property
    def training_options(self) -> dict[str, Any]:
        """Config options that train as the file's run did, as far as the file says."""
        return {ours: self.settings[theirs] for theirs, ours in SAME_OPTIONS.items() if theirs in self.settings}

    @property
    def deviations(self) -> dict[str, Any]:
        """Settings that our STEGO has fixed at another value."""
        return {
            name: self.settings[name]
            for name, value in FIXED.items()
            if name in self.settings and self.settings[name] != value
        }

    @property
    def shown_settings(self) -> dict[str, Any]:
        """The settings that make a difference, in a reader's order."""
        return {name: self.settings[name] for name in SHOWN if name in self.settings}

    @property
    def config_name(self) -> str | None:
        """Stem of our config for the backbone and data set, ``stego_vit-b8_coco``; None where there is none."""
        suffix, _ = DATA.get(str(self.settings.get('dataset_name')), (None, None))
        known = suffix is not None and self.backbone.short_name in ('vit-s8', 'vit-b8')
        return f'stego_{self.backbone.short_name}_{suffix}' if known else None

    @property
    def dataset_meta(self) -> dict[str, Any] | None:
        """Names and colours of the classes, which mmseg's inference reads from a checkpoint; None for other data."""
        _, name = DATA.get(str(self.settings.get('dataset_name')), (None, None))
        dataset = None if name is None else DATASETS.get(name)
        if dataset is None or len(dataset.METAINFO['classes']) != self.num_classes:
            return None
        palette = [[int(value) for value in colour] for colour in dataset.METAINFO['palette']]
        return dict(classes=[str(title) for title in dataset.METAINFO['classes']], palette=palette)


def convert_stego_checkpoint(content: Any, source: str) -> ConvertedSTEGO:
    """Convert the content of a Lightning checkpoint.

    Args:
        content: From `read_foreign_checkpoint`.
        source: Name of the file, for messages.

    Raises:
        ValueError: If it is no checkpoint of STEGO, or of a model that ours cannot be; entries that are missing, left
            over or of the wrong shape are named.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get('state_dict'), Mapping):
        raise ValueError(f"{source} is not a Lightning checkpoint with a 'state_dict': it holds {_described(content)}.")
    named = dict(content['state_dict'])
    if CLUSTERS not in named or not any(key.startswith(BACKBONE) for key in named):
        raise ValueError(
            f"{source} is not a checkpoint of STEGO with a DINO backbone, which has '{CLUSTERS}' and '{BACKBONE}*'; "
            f'its state_dict holds {_described(named)}.'
        )
    not_tensors = [key for key, value in named.items() if not isinstance(value, Tensor)]
    if not_tensors:
        raise ValueError(f'{source} holds no tensors at {listed(not_tensors)}.')
    settings = _settings(content)
    state, shape, others = split_backbone(named, BACKBONE, source)
    left_out = [key for key in others if key.startswith(LEFT_OUT)]
    remaining = {key: value for key, value in others.items() if key not in left_out}
    state['cluster_probe.centres'] = remaining.pop(CLUSTERS)
    for theirs, ours in LAYERS.items():
        for kind in ('weight', 'bias'):
            if theirs + kind in remaining:
                state[ours + kind] = remaining.pop(theirs + kind)
    if remaining:
        raise ValueError(f'{source} has entries without a counterpart in our STEGO: {listed(remaining)}.')
    channels, num_classes, extra = _check_shapes(state, shape, settings, source)
    state['iteration'] = torch.tensor(_batches(content), dtype=torch.long)
    return ConvertedSTEGO(state, shape, channels, num_classes, extra, left_out, settings)


def config_text(converted: ConvertedSTEGO, base: str) -> str:
    """A config file that loads the weights and trains as the file's run did.

    Args:
        converted: From `convert_stego_checkpoint`.
        base: Path of the config that it extends, relative to itself.
    """
    tree: dict[str, Any] = {}
    for option, value in {**converted.model_options, **converted.training_options}.items():
        *path, name = option.split('.')
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[name] = value
    lines = ['# Settings stored in the checkpoint of the reference implementation.', f'_base_ = [{base!r}]']
    return '\n'.join([*lines, *(f'{name} = {_as_code(value)}' for name, value in tree.items())]) + '\n'


def _as_code(value: Any, indent: str = '') -> str:
    """A value as Python, one line for each entry of a dict."""
    if not isinstance(value, dict):
        return repr(value)
    inner = f'{indent}    '
    entries = ''.join(f'{inner}{name}={_as_code(item, inner)},\n' for name, item in value.items())
    return f'dict(\n{entries}{indent})'


def _settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """The run's settings, whether stored as such, below ``cfg`` or in groups below that."""
    stored = plain_settings(content.get('hyper_parameters', {}))
    settings: dict[str, Any] = {}
    groups = [stored]
    while groups:
        group = groups.pop(0)
        if isinstance(group, dict):
            groups.extend(value for value in group.values() if isinstance(value, dict))
            settings = {**{key: value for key, value in group.items() if not isinstance(value, dict)}, **settings}
    return settings


def _check_shapes(
    state: dict[str, Tensor], backbone: TransformerShape, settings: dict[str, Any], source: str
) -> tuple[int, int, int]:
    """Check that the parts belong together, and return the code's dimension, the numbers of classes and extra clusters.

    The linear probe has one row for each class, and the cluster probe these and ``extra_clusters`` more.
    """
    clusters, channels = sized(state, 'cluster_probe.centres', 2, source)
    classes, weight = settings.get('n_classes'), 'linear_probe.classifier.weight'
    if not isinstance(classes, int):
        classes = sized(state, weight, 4, source)[0] if weight in state else clusters
    layers = {
        'decode_head.linear': (channels, backbone.embed_dims),
        'linear_probe.classifier': (classes, channels),
    }
    if any(key.startswith('decode_head.nonlinear.') for key in state):
        layers['decode_head.nonlinear.0'] = (backbone.embed_dims, backbone.embed_dims)
        layers['decode_head.nonlinear.2'] = (channels, backbone.embed_dims)
    sizes: dict[str, tuple[int, ...]] = {}
    for name, (rows, columns) in layers.items():
        sizes |= {f'{name}.weight': (rows, columns, 1, 1), f'{name}.bias': (rows,)}
    missing = sizes.keys() - state.keys()
    if missing:
        raise ValueError(f'{source} lacks the entries of {listed(missing)} (in the names of our STEGO).')
    check_shapes(state, sizes, source, 'our STEGO')
    stated, extra = settings.get('extra_clusters'), clusters - classes
    if extra < 0 or (isinstance(stated, int) and stated != extra):
        raise ValueError(
            f'The parts of {source} do not fit each other: {clusters} clusters for {classes} classes, though it states '
            f'extra_clusters={stated}.'
        )
    return channels, classes, extra


def _batches(content: Mapping[str, Any]) -> int:
    """Training batches seen; from version 1.6 Lightning counts one step for each of the three optimisers."""
    steps = content.get('global_step', 0)
    version = re.findall(r'\d+', str(content.get('pytorch-lightning_version', '1.5')))
    counted_each = [int(number) for number in version[:2]] >= [1, 6]
    return (steps // OPTIMIZERS if counted_each else steps) if isinstance(steps, int) else 0


def _described(content: Any) -> str:
    return f'the entries {listed(content)}' if isinstance(content, Mapping) else f'a {type(content).__name__}'
