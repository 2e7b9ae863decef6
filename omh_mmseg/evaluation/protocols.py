"""What a protocol (see `omh_mmseg.structures.protocols`) makes of a config."""

from __future__ import annotations

import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from mmengine.config import Config

from omh_mmseg.evaluation.heads import LEVEL, scored_fields
from omh_mmseg.structures.protocols import Protocol, resolve
from omh_mmseg.utils.dataset_configs import innermost_datasets
from omh_mmseg.utils.shared_options import NOTE, PIPELINE

RESIZES = ('ResizeShortSide', 'ResizeToCover', 'Resize', 'ResizeShortestEdge')
CROPS = ('CentreCrop', 'CenterCrop')
LABELS = re.compile(r'Load\w*Annotations')
PACKED = (
    'img_path', 'seg_map_path', 'ori_shape', 'img_shape', 'pad_shape', 'scale_factor', 'flip', 'flip_direction',
    'reduce_zero_label',
)  # fmt: skip
"""What ``PackSegInputs`` keeps by default."""
FRAMES = 'FramesWithFlow'
"""What the test set is put into by a protocol that scores frames in their order."""
CRF_RESOURCES = ('backend', 'workers')
"""Keys of ``test_cfg.crf`` that say where it is computed, not what."""


def apply_protocol(config: Config, protocol: str | Protocol) -> Protocol:
    """Make a config test by a protocol.

    The test pipeline keeps how images and labels are loaded and packed; resize and crop are the protocol's.
    ``tta_pipeline`` gets the same, with and without a flip. ``model.test_cfg`` gets windows, flip and CRF. The settings
    go to ``config.protocol``.

    Args:
        config: Changed in place.
        protocol: A name for `resolve`, or a protocol.

    Returns:
        The protocol.

    Raises:
        ValueError: An unknown name, or a test pipeline with steps that have no place in a protocol.
    """
    if isinstance(protocol, str):
        protocol = resolve(protocol)
    if protocol.mode == 'slide':
        # Windows lie on the positions of the code of the config's backbone.
        cell = (config.model.get('data_preprocessor', {}).get('test_cfg') or {}).get('size_divisor') or 1
        sides = {key: -(-getattr(protocol, key) // cell) * cell for key in ('crop_size', 'stride')}
        protocol = replace(protocol, **sides)
    dataset, *_ = innermost_datasets(config.test_dataloader.dataset).values()
    before_packing, pack = _steps(dataset.get('pipeline') or config.test_pipeline, protocol)
    pipeline = [*before_packing, pack]
    dataset['pipeline'] = pipeline
    config.test_pipeline = deepcopy(pipeline)
    if PIPELINE in (config.get(NOTE) or {}):
        config[NOTE][PIPELINE] = deepcopy(pipeline)
    flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0, direction='horizontal')]
    config.tta_pipeline = [*deepcopy(before_packing), dict(type='TestTimeAug', transforms=[flips, [deepcopy(pack)]])]
    if protocol.temporal and config.test_dataloader.dataset.type != FRAMES:
        config.test_dataloader.dataset = dict(type=FRAMES, dataset=config.test_dataloader.dataset)
    if not protocol.crop:
        # Images keep their own shapes.
        config.test_dataloader.batch_size = 1
    config.model.test_cfg = _test_cfg(config.model.get('test_cfg') or {}, protocol)
    config.protocol = protocol.settings()
    return protocol


def predict_scored_alone(config: Config) -> None:
    """Have a config with a CRF predict what its test evaluators score and nothing else, as each field has its price.

    Levels that the config asks for stay, and so does everything where an evaluator is not known.

    Args:
        config: Changed in place; before `use_test_time_augmentation`.
    """
    test_cfg = config.model.get('test_cfg') or {}
    fields = scored_fields(config.test_evaluator)
    if test_cfg.get('crf') is None or fields is None:
        return
    if config.model.get('omh_head') is not None and test_cfg.get('levels') is None:
        test_cfg['levels'] = sorted(int(found[1]) for found in map(LEVEL.fullmatch, fields) if found)
    test_cfg.setdefault('linear', 'pred_linear' in fields)


def protocol_of_config(config: Config, split: str = 'test') -> dict[str, Any]:
    """What the scores of a config are taken with.

    Args:
        config: Of a run.
        split: ``'test'`` or ``'val'``. Named protocols are those of tests.

    Returns:
        The settings of the protocol that was applied, else of the config's own under the name ``config``.
    """
    if split == 'test' and config.get('protocol'):
        return dict(config.protocol)
    dataset, *_ = innermost_datasets(config[f'{split}_dataloader'].dataset).values()
    model = config.model.get('module', config.model)
    steps = [f'{step["type"]}({step["size"]})' if 'size' in step else step['type'] for step in dataset['pipeline']]
    return dict(
        name='config',
        pipeline=' > '.join(steps),
        test_cfg={key: value for key, value in (model.get('test_cfg') or {}).items() if key != 'assignment'},
        tta='module' in config.model,
    )


def _steps(pipeline: Sequence[dict[str, Any]], protocol: Protocol) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The steps of the protocol's pipeline before the packing, and the packing."""
    *steps, pack = (deepcopy(dict(step)) for step in pipeline)
    labels = [step for step in steps if LABELS.fullmatch(step['type'])]
    resizes = [step for step in steps if step['type'] in RESIZES]
    loading = [step for step in steps if step not in labels and step not in resizes and step['type'] not in CROPS]
    strange = [step['type'] for step in loading if not step['type'].startswith('Load')]
    if strange or not loading or not pack['type'].startswith('Pack'):
        raise ValueError(
            f'a protocol cannot rewrite the test pipeline {[step["type"] for step in (*steps, pack)]}: it must load '
            f'(Load...), resize ({", ".join(RESIZES)}), crop ({", ".join(CROPS)}) and pack (Pack...)'
            + (f'; {", ".join(strange)} has no place' if strange else '')
        )
    if protocol.side is not None:
        resizes = [dict(type='ResizeShortSide', size=protocol.side, interpolation=protocol.interpolation)]
    elif protocol.mode == 'slide':
        resizes = []
    if protocol.crop:
        resizes.append(dict(type='CentreCrop', size=protocol.side))
        pack['meta_keys'] = tuple(dict.fromkeys([*(pack.get('meta_keys') or PACKED), 'crop_bbox']))
    order = [*loading, *labels, *resizes] if protocol.label_size == 'resized' else [*loading, *resizes, *labels]
    return order, pack


def _test_cfg(test_cfg: dict[str, Any], protocol: Protocol) -> dict[str, Any]:
    kept = {key: value for key, value in test_cfg.items() if key not in ('crop_size', 'stride')}
    resources = {key: value for key, value in (test_cfg.get('crf') or {}).items() if key in CRF_RESOURCES}
    changes: dict[str, Any] = dict(
        mode=protocol.mode,
        output_size='original',
        flip=protocol.flip,
        crf=resources if protocol.crf else None,
        alpha=protocol.alpha,
    )
    if protocol.mode == 'slide':
        changes |= dict(crop_size=(protocol.crop_size,) * 2, stride=(protocol.stride,) * 2)
    return kept | changes
