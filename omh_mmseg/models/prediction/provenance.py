"""What the predictions of a model depend on beside its trained weights, from the built model and its config."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from omh_mmseg.models.data_preprocessor import preprocessing
from omh_mmseg.utils.dataset_configs import innermost_datasets
from omh_mmseg.utils.digests import plain_settings, weights_digest
from omh_mmseg.version import __version__

WHERE_FROM = (
    'checkpoint', 'key_converter', 'allow_left_over', 'allow_missing', 'init_cfg', 'pretrained', 'channels_last',
)  # fmt: skip
"""Keys of a backbone's config that say where its weights come from or how they lie in memory; their digest counts."""
READER = re.compile(r'LoadImage\w*|InferencerLoader')
UNREAD = ('type', '_scope_', 'max_pixels', 'backend_args', 'file_client_args', 'ignore_empty')
"""Keys of the step that reads images which change no pixel."""
SIZED = re.compile(r'\w*(Resize|Crop|Pad|Rescale)\w*')
DIGITS = 6


def describe_model(model: Any, config: Mapping[str, Any], weights: str | None = None) -> dict[str, Any]:
    """The parts of a record, see `omh_mmseg.structures.provenance`, as plain data; unknown ones are None.

    Args:
        model: A segmentor, not a wrapper of one.
        config: The whole config.
        weights: Digest of the backbone's weights, where it is known; else it is computed.

    Returns:
        ``version`` of the library; ``normalisation`` (in the units of the image, and whether blue comes first no more)
        and ``padding`` of prediction; ``size`` and ``train_size``, the steps of the pipelines that resize, crop or pad;
        ``reading`` and ``train_reading``, the range of values and the bands that they read; ``single_size`` and
        ``single_reading``, those of images outside data sets; ``backbone``, its config less where the weights come
        from, and ``weights``, their digest; ``head`` and ``hierarchy`` as predictions depend on them; ``num_classes``.
    """
    seen = preprocessing(model.data_preprocessor, False)
    padding = seen.pop('padding')
    settings = config.get('model') or {}
    while 'module' in settings:  # test-time augmentation
        settings = settings['module']
    head = getattr(model, 'omh_head', None)
    by_protocol, single = bool(config.get('protocol')), config.get('test_pipeline')
    return dict(
        version=__version__,
        normalisation={key: _rounded(value) for key, value in seen.items()},
        padding=padding or 'none',
        size=None if by_protocol else size_steps(config, 'test'),
        train_size=size_steps(config, 'train'),
        reading=_reading(_pipeline(config, 'test')),
        train_reading=_reading(_pipeline(config, 'train')),
        single_size=None if by_protocol else _sized(single),
        single_reading=_reading(single),
        backbone=plain_settings(settings.get('backbone'), WHERE_FROM),
        weights=weights or weights_digest(model.backbone.state_dict()),
        head=dict(segmentor=type(model).__name__, layers=_layers(model.decode_head)),
        hierarchy=None if head is None else dict(
            levels=list(head.level_sizes), entropy_weight=head.plan.entropy_weight, marginal=head.plan.marginal
        ),
        num_classes=model.num_classes,
    )  # fmt: skip


def describe_classes(metainfo: Mapping[str, Any] | None) -> dict[str, Any]:
    """Names and colours of the classes, as plain data; None where they are unknown."""
    classes, palette = ((metainfo or {}).get(key) for key in ('classes', 'palette'))
    return dict(
        classes=None if classes is None else [str(name) for name in classes],
        palette=None if palette is None else [[int(channel) for channel in colour] for colour in palette],
    )


def size_steps(config: Mapping[str, Any], split: str) -> list[str] | None:
    """The steps of a split's pipeline that resize, crop or pad images, with their settings; None without a pipeline."""
    averaged = split == 'test' and 'module' in (config.get('model') or {})  # its views are those of tta_pipeline
    return _sized(config.get('test_pipeline') if averaged else _pipeline(config, split))


def _pipeline(config: Mapping[str, Any], split: str) -> Sequence[Any] | None:
    """That of a split's data set, or of the first of several."""
    loader = config.get(f'{split}_dataloader') or {}
    pipelines = [part.get('pipeline') for part in innermost_datasets(loader.get('dataset')).values()]
    if split == 'test' and not any(pipelines):
        return config.get('test_pipeline')
    return pipelines[0] if pipelines else None


def _sized(pipeline: Sequence[Any] | None) -> list[str] | None:
    if pipeline is None:
        return None
    steps = [plain_settings(step) for step in pipeline if isinstance(step, Mapping)]
    return [
        f'{step.pop("type")}({", ".join(f"{key}={value}" for key, value in step.items())})'
        for step in steps
        if SIZED.fullmatch(_type(step))
    ]


def _reading(pipeline: Sequence[Any] | None) -> dict[str, Any] | None:
    """What the step that reads images makes of their values; None without one."""
    for step in pipeline or ():
        if isinstance(step, Mapping) and READER.fullmatch(_type(step)):
            return dict(value_range=None, bands=None) | plain_settings(step, UNREAD)
    return None


def _type(step: Mapping[str, Any]) -> str:
    kind = step.get('type')
    return kind.__name__ if isinstance(kind, type) else str(kind).rpartition('.')[2]


def _layers(module: nn.Module) -> list[str]:
    """The layers that act in a prediction; their sizes are those of the weights."""
    leaves = [type(child).__name__ for child in module.modules() if not list(child.children())]
    return [name for name in leaves if 'Drop' not in name]


def _rounded(value: Any) -> Any:
    """Decimals that float32 holds."""
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f'{value:.{DIGITS}g}') if isinstance(value, float) else value
