"""The floor of every host: k-means on the frozen features, scored like a segmentor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from omh_mmseg.evaluation.border import BorderCounts
from omh_mmseg.models.prediction.upsampling import arg_max
from omh_mmseg.models.segmentors import UnsupervisedSegmentor


@torch.no_grad()
def collect_features(
    model: UnsupervisedSegmentor, loader: DataLoader, per_image: int, generator: torch.Generator,
    extract: Callable[[Tensor], Tensor] | None = None, title: str = 'features',
) -> np.ndarray:  # fmt: skip
    """Unit features at random positions of every image of a loader.

    Args:
        model: Its data preprocessor is used.
        loader: Yields single-view batches.
        per_image: Positions drawn from each image.
        generator: Draws them.
        extract: From preprocessed images to features (N, C, H, W); None for those of the frozen backbone.
        title: Of the progress bar.

    Returns:
        Shape (images x per_image, C), float32.
    """
    collected = []
    for batch in track(loader, title):
        features = (extract or model.extract_feat)(model.data_preprocessor(batch, False)['inputs'])
        for item in F.normalize(features.flatten(2), dim=1):
            chosen = torch.randperm(item.shape[1], generator=generator)[:per_image]
            collected.append(item[:, chosen].t().cpu().numpy())
    return np.concatenate(collected)


@torch.no_grad()
def score_centres(
    model: UnsupervisedSegmentor, centres: Tensor, loader: DataLoader, evaluator: Evaluator,
    border: BorderCounts | None = None,
) -> dict[str, float]:  # fmt: skip
    """Score the nearest centre of each pixel's upsampled unit feature.

    Args:
        model: Supplies preprocessing and features.
        centres: Shape (K, C).
        loader: Labelled images.
        evaluator: With the data set's ``dataset_meta``.
        border: Counts the predictions, too.

    Returns:
        The evaluator's scores.
    """
    # |x - c|^2 = |x|^2 - 2 (<x, c> - |c|^2 / 2): the bracket is affine in x, so it can be upsampled in place of x.
    offset = -(centres**2).sum(1) / 2
    seen = 0
    for batch in track(loader, 'scoring k-means'):
        data = model.data_preprocessor(batch, False)
        features = F.normalize(model.extract_feat(data['inputs']), dim=1)
        maps = F.conv2d(features, centres[:, :, None, None].to(features), offset.to(features))
        for index, sample in enumerate(data['data_samples']):
            upsampling = model.predictor.upsampling(data['inputs'].shape[-2:], sample)
            sample.pred_sem_seg = PixelData(data=arg_max(maps[index : index + 1], upsampling))
        seen += len(data['data_samples'])
        if border is not None:
            border.add(data['data_samples'])
        evaluator.process(data_samples=data['data_samples'], data_batch=batch)
    return evaluator.evaluate(seen)
