"""The closing refit of a model that has been trained without one, with its scores before and after."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from mmengine.runner.checkpoint import _load_checkpoint

from omh_mmseg.apis.inference import init_model
from omh_mmseg.apis.scoring import score_model
from omh_mmseg.choices import REFIT_POSITIONS
from omh_mmseg.engine import launch
from omh_mmseg.engine.checkpoints import write_again
from omh_mmseg.engine.hooks.assignment_hook import unsupervised_metrics
from omh_mmseg.engine.hooks.closing_refit_hook import BEFORE
from omh_mmseg.engine.models import model_of
from omh_mmseg.engine.refit import (
    MAX_CODES,
    collect_codes,
    named_fields,
    refit_model,
    shares_of,
)
from omh_mmseg.evaluation.heads import head_of
from omh_mmseg.models.prediction.cluster_bias import clusterings
from omh_mmseg.models.utils.closing_refit import Refit
from omh_mmseg.utils.config import building

REFIT = 'refit:'
"""What the names of scores after a closing refit begin with, where both are in one result."""


def refit_checkpoint(
    config: Config,
    checkpoint: str,
    which: str | Sequence[str] = 'all',
    positions: int = REFIT_POSITIONS,
    delta: float | None = None,
    save: str | os.PathLike[str] | None = None,
    device: str | None = None,
) -> list[dict[str, Any]]:
    """Refit a trained model to its training images and score both on the validation split.

    Args:
        config: Of the run, as `omh_mmseg.utils.config.read_config` gives it.
        checkpoint: Of the run.
        which: Clusterings, see `ClosingRefitHook`.
        positions: Codes of each training image, likewise.
        delta: Fixed weight of the size prior; None to choose it.
        save: Checkpoint to write with the refitted centres, their bias, and the classes of the clusters that the
            validation found; without labels they have none until one does.
        device: Where to compute; None for the first GPU, else the CPU.

    Returns:
        One row per clustering: ``clustering``, ``delta``, ``clusters`` (in use), ``effective``, each also
        ``... before``, and with labels ``mIoU`` and ``aAcc`` likewise, where the metric scores the clustering.

    Raises:
        ValueError: No such clustering, or one that was refitted already.
    """
    model: Any = init_model(config, checkpoint, device)
    fields = named_fields(model, which)
    done = [head_of(field) for field in fields if model.cluster_bias.of(field) is not None]
    content = _load_checkpoint(checkpoint, map_location='cpu', logger='silent')
    done += [head_of(field) for field in fields if field in (content.get(BEFORE) or {})]
    if done:
        raise ValueError(f'{checkpoint} holds clusterings that were refitted: {", ".join(dict.fromkeys(done))}')
    seed = int((config.get('randomness') or {}).get('seed') or 0)
    with building():
        loader = Runner.build_dataloader(config.train_dataloader, seed=seed)
        val_loader = Runner.build_dataloader(config.val_dataloader, seed=seed)
        evaluator = launch.build_evaluator(config, val_loader.dataset.metainfo)
    codes = collect_codes(model, loader, seed, positions, MAX_CODES)
    before = {field: clusterings(model)[field].detach().clone().cpu() for field in fields}
    shares = {field: shares_of(model, codes, field) for field in fields}
    scores = [score_model(model, val_loader, evaluator, 'scoring, before')]
    found = refit_model(model, codes, fields, delta)
    scores.append(score_model(model, val_loader, evaluator, 'scoring, after'))
    if save is not None:
        matched = {
            field: classes
            for metric in unsupervised_metrics(evaluator)
            for field, classes in metric.last_assignment.items()
        }
        model.assignment.forget(fields)
        model.assignment.update(matched)
        _save(content, model, before, save)
    return [refit_row(field, shares[field], found[field], scores) for field in fields]


def score_refit(runner: Runner, which: str | Sequence[str] = 'all') -> dict[str, float]:
    """Scores of a runner's model with and without a closing refit of its clusterings; the model stays as it is.

    Args:
        runner: Whose training has ended.
        which: Clusterings, see `ClosingRefitHook`.

    Returns:
        Without a prefix ``<clustering>/clusters`` (in use) and ``/effective`` of the model; after `REFIT` the same of
        the refit, ``/delta``, and the scores of the validation, where the run has one.
    """
    model = copy.deepcopy(model_of(runner))
    fields = named_fields(model, which)
    codes = collect_codes(model, runner.train_dataloader, runner.seed or 0)
    found = {'': {field: shares_of(model, codes, field) for field in fields}}
    found[REFIT] = refit_model(model, codes, fields)
    scores = {f'{REFIT}{head_of(field)}/delta': one.delta for field, one in found[REFIT].items()}
    for prefix, clusterings_found in found.items():
        for field, one in clusterings_found.items():
            name = f'{prefix}{head_of(field)}'
            scores[f'{name}/clusters'] = float(len(one.shares) - len(one.unused))
            scores[f'{name}/effective'] = one.effective
    if runner.val_loop is not None:
        after = score_model(model, runner.val_dataloader, runner.val_loop.evaluator, 'scoring the refit')
        scores |= {f'{REFIT}{name}': value for name, value in after.items()}
    return scores


def refit_row(field: str, before: Refit, after: Refit, scores: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """A clustering's figures before and after its refit, see `refit_checkpoint`."""
    name = head_of(field)
    row: dict[str, Any] = dict(clustering=name, delta=after.delta)
    for suffix, one, scored in ((' before', before, scores[0]), ('', after, scores[-1])):
        row[f'clusters{suffix}'] = len(one.shares) - len(one.unused)
        row[f'effective{suffix}'] = one.effective
        row |= {f'{kind}{suffix}': scored[f'{name}/{kind}'] for kind in ('mIoU', 'aAcc') if f'{name}/{kind}' in scored}
    return row


def _save(content: dict[str, Any], model: Any, before: Mapping[str, torch.Tensor], target: Any) -> None:
    state = {key: value.cpu() for key, value in model.state_dict().items()}
    write_again({**content, 'state_dict': state, BEFORE: dict(before)}, target)
