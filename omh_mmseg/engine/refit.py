"""The closing refit of a trained model: codes of its training images, and clusterings brought to their fixed points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import get_dist_info, is_main_process
from mmengine.logging import MMLogger
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from omh_mmseg.choices import REFIT_POSITIONS
from omh_mmseg.datasets.samplers import SeededIndex, seeded_loader
from omh_mmseg.datasets.wrapper import outside_cache
from omh_mmseg.evaluation.heads import PROBE, head_of
from omh_mmseg.models.prediction.cluster_bias import clusterings, counts_length
from omh_mmseg.models.utils.closing_refit import DELTAS, Refit, refit, shares_with
from omh_mmseg.utils.generators import generator_of
from omh_mmseg.utils.text import first_few

MAX_CODES = 1 << 21
"""Of all images together; a larger set gives fewer codes an image. At 90 channels they take 720 MiB."""
PURPOSE = 'closing refit'


def named_fields(model: Any, clusterings_of: str | Sequence[str]) -> list[str]:
    """Fields of a model's clusterings: ``'all'``, ``'levels'`` (OMH's), ``'none'``, or the names ``'probe'``, ...

    Raises:
        ValueError: The model has no clustering of a name.
    """
    known = {head_of(field): field for field in clusterings(model)}
    if isinstance(clusterings_of, str):
        choices = dict(all=list(known), levels=[name for name in known if name != PROBE], none=[])
        names = choices.get(clusterings_of, [clusterings_of])
    else:
        names = list(clusterings_of)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f'the closing refit is asked for {first_few(unknown)}; the model has the clusterings {", ".join(known)} '
            "('all' for all of them, 'levels' for those of OMH, 'none' for none)"
        )
    return [known[name] for name in names]


@torch.no_grad()
def collect_codes(
    model: Any, loader: DataLoader, seed: int, positions: int = REFIT_POSITIONS, most: int = MAX_CODES
) -> Tensor:
    """Unit codes at random positions of every image of a train set, as the model predicts them.

    Which positions, and what an image's pipeline draws, follows from the seed and the number of the image, whoever
    loads it.

    Args:
        model: Left in the mode that it is in.
        loader: Of the training; its data set, batch size and workers are used. Of pairs the first image counts.
        seed: Of the draws.
        positions: Of each image, at most all.
        most: Codes of all images together; fewer are drawn of each where they would be more.

    Returns:
        Codes (P, D) of the images that are this process's share.
    """
    images: Any = outside_cache(loader.dataset)[1]
    positions = max(1, min(positions, most // max(1, len(images))))
    rank, ranks = get_dist_info()
    own = range(rank, len(images), ranks)
    indices = [SeededIndex(item, (PURPOSE, seed, item)) for item in own]
    reader = seeded_loader(loader, images, indices, generator=generator_of(PURPOSE, seed))
    # Random augmentations of a batch are no part of a prediction; without them images of several sizes are padded.
    pads = getattr(model.data_preprocessor, 'batch_augments', None) is None
    training, items, chosen = model.training, iter(own), []
    model.eval()
    try:
        for batch in track(reader, PURPOSE, transient=True, disable=not is_main_process()):
            data = model.data_preprocessor(batch, pads)
            inputs = data['inputs']
            inputs = next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs
            codes = model.encode(inputs)
            for code, sample in zip(codes, data['data_samples']):
                inside = _inside(code, sample.metainfo.get('img_shape', inputs.shape[-2:]), inputs.shape[-2:])
                order = torch.randperm(inside.shape[1], generator=generator_of(PURPOSE, seed, next(items)))
                chosen.append(F.normalize(inside[:, order[:positions].to(inside.device)].t(), dim=1))
    finally:
        model.train(training)
    if chosen:
        return torch.cat(chosen)
    channels = next(iter(clusterings(model).values())).shape[1]
    return torch.empty(0, channels, device=model.data_preprocessor.device)


@torch.no_grad()
def refit_model(
    model: Any, codes: Tensor, fields: Sequence[str], delta: float | None = None, leave_apart: bool = False
) -> dict[str, Refit]:
    """Refit clusterings of a model in place: the bias goes to its ``cluster_bias``.

    Centres keep their lengths; where these count in the scores they become 1, as a refit is by cosine.

    Args:
        model: A segmentor.
        codes: From `collect_codes`.
        fields: Of the clusterings.
        delta: See `refit`.
        leave_apart: See `ClosingRefitHook`.

    Returns:
        What was found, by field; nothing of those that were left.
    """
    logger, found = MMLogger.get_current_instance(), {}
    centres_of = clusterings(model)
    for field in fields:
        centres, name = centres_of[field], head_of(field)
        result = refit(codes, centres, delta)
        if leave_apart and delta is None and result.delta == DELTAS[0] and not result.unused:
            logger.info(
                f'no closing refit of {name}: its clusters lie so far apart that the largest size prior keeps them all'
            )
            continue
        found[field] = result
        length = 1.0 if counts_length(model, field) else centres.norm(dim=1, keepdim=True)
        centres.copy_(result.centres.to(centres) * length)
        model.cluster_bias.set(field, result.bias)
        used = len(centres) - len(result.unused)
        logger.info(
            f'closing refit of {name}: size prior {result.delta:g}, {used} of {len(centres)} clusters in use, '
            f'{result.effective:.1f} effective'
        )
        if result.unused:
            logger.warning(
                f'the closing refit left {len(result.unused)} of the {len(centres)} clusters of {name} without '
                f'positions: {first_few([str(number) for number in result.unused])}. They predict nothing'
            )
    return found


@torch.no_grad()
def shares_of(model: Any, codes: Tensor, field: str) -> Refit:
    """A clustering of a model as it is, with the shares of its clusters among codes from `collect_codes`."""
    kept = counts_length(model, field)
    return shares_with(codes, clusterings(model)[field], model.cluster_bias.of(field), kept)


def _inside(code: Tensor, image: Sequence[int], padded: Sequence[int]) -> Tensor:
    """The positions (D, n) of a code (D, h, w) that are not of padding at the right and bottom alone."""
    rows, columns = (
        max(1, min(cells, -(-side * cells // whole))) for side, whole, cells in zip(image, padded, code.shape[-2:])
    )
    return code[:, :rows, :columns].flatten(1)
