"""Another backbone in a host's config, with weights of a file or random ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from omh_mmseg.registry import MODELS
from omh_mmseg.study.process import settings_key
from omh_mmseg.utils.dataset_configs import find_dataset, innermost_datasets
from omh_mmseg.utils.files import replaced_when_complete
from omh_mmseg.utils.shared_options import LOADERS, NOTE, PIPELINE

SIZED_STEPS = ('ResizeToCover', 'CentreCrop', 'ResizeShortSide')
_KEY_LETTERS = 12


def put_backbone(config: Config, block: str, index_folder: str | None = None) -> None:
    """Put the backbone and the preprocessing of a block into a host's config, in place.

    Args:
        config: Of a host, on any backbone.
        block: Config file that defines ``backbone`` and ``data_preprocessor`` of ``model``.
        index_folder: Where the neighbour index is to be; None for where the config has it.
    """
    for part, settings in Config.fromfile(block).model.items():
        config.model[part] = settings
    pairs = pairs_config(config)
    if pairs is not None:
        folder = Path(index_folder or Path(str(pairs['index'])).parent)
        pairs['index'] = str(folder / f'{Path(block).stem}_{{fingerprint}}.npz')


def pairs_config(config: Config) -> dict[str, Any] | None:
    """The config's data set of neighbour pairs; None where it needs no index."""
    return find_dataset(config.get('train_dataloader', {}).get('dataset'), 'NeighbourPairs')


def name_random_weights(config: Config, seed: int, folder: str) -> None:
    """Let the backbone take random weights of a file that `prepare_backbone` makes; in place.

    Args:
        config: Of a model.
        seed: Of the weights.
        folder: Of the file, whose name tells architectures apart.
    """
    frozen = config.model.backbone
    frozen.backbone.pop('init_cfg', None)
    if 'pretrained' in frozen.backbone:
        frozen.backbone.pretrained = False
    name = f'random_weights_{settings_key(frozen.backbone.to_dict())[:_KEY_LETTERS]}_seed{seed}.pth'
    frozen.update(checkpoint=str(Path(folder) / name), key_converter=None)


def prepare_backbone(config: Config, seed: int, random: bool) -> None:
    """Draw the weights of `name_random_weights` if they are wanted and absent, and fit the image sizes; in place."""
    frozen = config.model.backbone
    if random and not Path(frozen.checkpoint).is_file():
        torch.manual_seed(seed)
        wrapped = MODELS.build({**frozen, 'checkpoint': None}).backbone
        if hasattr(wrapped, 'init_weights'):
            wrapped.init_weights()
        with replaced_when_complete(frozen.checkpoint) as file:
            torch.save(wrapped.state_dict(), file)
    fit_sizes(config, MODELS.build(frozen).size_multiple)


def fit_sizes(config: Config, multiple: int) -> None:
    """Round the image sizes of all pipelines to the nearest multiples, so that nothing is padded; in place."""

    def fitted(size: Any) -> Any:
        if isinstance(size, int):
            return max(round(size / multiple), 1) * multiple
        return tuple(fitted(side) for side in size)

    datasets = [part for loader in LOADERS for part in innermost_datasets(config[loader].dataset).values()]
    pipelines = [dataset.get('pipeline', []) for dataset in datasets]
    pipelines += [config.get('tta_pipeline'), config.get(PIPELINE), (config.get(NOTE) or {}).get(PIPELINE)]
    for step in (step for pipeline in pipelines for step in pipeline or []):
        if str(step.get('type')) in SIZED_STEPS:
            step['size'] = fitted(step['size'])
            if step.get('divisor') is not None:
                step['divisor'] = multiple
