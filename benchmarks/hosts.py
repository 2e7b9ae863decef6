"""The hosts as the configs for COCO-Stuff with ViT-S/8 build them, with random weights, and their training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from common import REPOSITORY
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

import omh_mmseg.models  # noqa: F401  registers the parts
from omh_mmseg.registry import MODELS

HOSTS = ('stego', 'hp', 'smooseg')
BACKBONES = ('vit-s8', 'tiny')
TINY = dict(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48)
LAMBDA_STEPS = 10
WITH_OMH = ', OMH'


def host_config(
    host: str = 'stego',
    omh: bool = False,
    backbone: str = 'vit-s8',
    image_size: int | tuple[int, int] = 224,
    classes: int | None = None,
    levels: int | None = None,
    precision: str | None = None,
) -> Config:
    """The config of an experiment, without a checkpoint.

    Args:
        host: One of `HOSTS`.
        omh: Whether OMH is on; its losses then reach the features from the first step.
        backbone: One of `BACKBONES`; ``tiny`` is to try a script.
        image_size: The size of the backbone's positional embedding.
        classes: K; None for the config's.
        levels: N of OMH; None for the config's.
        precision: Of the frozen backbone; None for the config's.
    """
    config = Config.fromfile(REPOSITORY / 'configs' / f'{"omh_" if omh else ""}{host}_vit-s8_coco.py')
    model = config.model
    model.backbone.checkpoint = None
    model.backbone.backbone.img_size = image_size
    if backbone == 'tiny':
        model.backbone.backbone.arch = TINY
    if classes is not None:
        model.num_classes = classes
    if precision is not None:
        model.backbone.precision = precision
    if host == 'hp':
        model.warmup, model.total_iterations = 0, LAMBDA_STEPS
    if omh:
        model.omh_head.reach = dict(begin=0)
        if levels is not None:
            model.omh_head.num_levels = levels
    return config


def build_model(config: Config, device: torch.device | str = 'cpu') -> nn.Module:
    """The model of a config with random weights, in training mode."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(config.model).train().to(device)


def build_batch(
    host: str, batch: int, image_size: int | tuple[int, int], classes: int, device: torch.device | str = 'cpu'
) -> dict[str, Any]:
    """Random images and labels, as a data loader hands them over."""
    size = (image_size, image_size) if isinstance(image_size, int) else image_size

    def images() -> list[Tensor]:
        return list(torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, device=device))

    samples = []
    for _ in range(batch):
        labels = torch.randint(0, classes, (1, *size), device=device)
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels)))
    inputs: Any = dict(anchor=images(), neighbour=images()) if host == 'stego' else images()
    return dict(inputs=inputs, data_samples=samples)


def training_step(model: nn.Module, config: Config) -> Callable[[Mapping[str, Any]], object]:
    """The step of mmengine's training loop on a batch of its data loader, with the config's optimiser."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        wrapper = build_optim_wrapper(model, config.optim_wrapper)
    return lambda data: model.train_step(data, wrapper)


def total(losses: dict[str, Tensor]) -> Tensor:
    """Sum of what is named a loss, as mmengine adds it up."""
    return torch.stack([value for name, value in losses.items() if 'loss' in name]).sum()


def on_off(name: str) -> dict[str, str]:
    """The columns ``step`` and ``omh`` of an alternative."""
    return dict(step=name.removesuffix(WITH_OMH), omh='on' if name.endswith(WITH_OMH) else 'off')


@torch.no_grad()
def fill_pools(model: nn.Module, image_size: int) -> None:
    """HP's reference pools from patches of two images, so that about as many pairs are alike as in a training."""
    images = torch.randn(2, 3, image_size, image_size, device=next(model.parameters()).device)
    features = model.extract_feat(images)
    for pool, maps in ((model.agnostic_pool, features), (model.specific_pool, model.decode_head(features))):
        rows = maps.flatten(2).transpose(1, 2).flatten(0, 1)
        pool.copy_(F.normalize(rows[torch.randint(len(rows), (len(pool),), device=rows.device)].float(), dim=1))
