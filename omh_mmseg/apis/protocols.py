"""One checkpoint scored by several protocols."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from omh_mmseg.apis.scoring import without_tables
from omh_mmseg.evaluation.protocols import apply_protocol, predict_scored_alone
from omh_mmseg.feature_cache.frozen_part import FEATURES, MIRRORED, FrozenPart, features_alone
from omh_mmseg.models.prediction.predictor import Predictor
from omh_mmseg.models.segmentors import UnsupervisedSegmentor
from omh_mmseg.registry import DATASETS
from omh_mmseg.structures.frozen_inputs import FrozenItem
from omh_mmseg.structures.protocols import Protocol, resolve
from omh_mmseg.utils.config import replace_settings

COLUMNS = ('/mIoU', '/aAcc')


@dataclass
class _Scoring:
    """One protocol on its way to its scores."""

    protocol: Protocol
    config: Config
    predictor: Predictor
    evaluator: Evaluator
    seconds: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)

    def result(self, protocol: Protocol) -> dict[str, Any]:
        return dict(scores=self.scores, seconds=round(self.seconds, 2), protocol=protocol.settings())


def compare_protocols(
    model: UnsupervisedSegmentor, config: Config, names: Sequence[str], options: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Score a model on the test split by each protocol.

    Those that differ in their name alone are computed once. Those that see the same images share the loading and the
    frozen features, and those with a CRF predict what is scored and nothing else.

    Args:
        model: On its device; its prediction options are put back at the end.
        config: Of the model; not changed.
        names: See `omh_mmseg.structures.protocols.resolve`.
        options: Settings that replace those of every protocol's config.

    Returns:
        For each name ``protocol`` (settings), ``scores`` (metric -> percent) and ``seconds``, to which what is shared
        counts as a whole.

    Raises:
        ValueError: An unknown protocol, or a test pipeline that it cannot rewrite.
    """
    protocols = [resolve(name) for name in names]
    scorings: dict[str, _Scoring] = {}
    training, test_cfg, predictor = model.training, model.test_cfg, model.predictor
    model.eval()
    try:
        for protocol in protocols:
            if _key(protocol) not in scorings:
                scorings[_key(protocol)] = _prepare(model, config, protocol, options or {})
        by_images: dict[str, list[_Scoring]] = {}
        for scoring in scorings.values():
            by_images.setdefault(str(scoring.config.test_dataloader), []).append(scoring)
        for group in by_images.values():
            _score(model, group)
    finally:
        model.test_cfg, model.predictor = test_cfg, predictor
        model.train(training)
    return [scorings[_key(protocol)].result(protocol) for protocol in protocols]


def protocol_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The result of `compare_protocols` as text: CRF, flip, then mIoU and accuracy of every head."""
    metrics = list(dict.fromkeys(name for row in rows for name in row['scores'] if name.endswith(COLUMNS)))
    width = max(len('protocol'), *(len(row['protocol']['name']) for row in rows))
    lines = [f'{"protocol":{width}}  CRF  flip  ' + '  '.join(f'{name:>11}' for name in metrics) + f'{"seconds":>10}']
    for row in rows:
        settings = row['protocol']
        cells = [f'{settings["name"]:{width}}', *('yes' if settings[key] else 'no ' for key in ('crf', 'flip'))]
        scores = [f'{row["scores"][name]:11.2f}' if name in row['scores'] else f'{"-":>11}' for name in metrics]
        lines.append('  '.join([*cells[:2], f'{cells[2]} ', *scores]) + f'{row["seconds"]:10.1f}')
    return '\n'.join(line.rstrip() for line in lines)


def _key(protocol: Protocol) -> str:
    return str({name: value for name, value in protocol.settings().items() if name != 'name'})


def _prepare(
    model: UnsupervisedSegmentor, config: Config, protocol: Protocol, options: Mapping[str, Any]
) -> _Scoring:
    config = deepcopy(config)
    apply_protocol(config, protocol)
    replace_settings(config, options)
    predict_scored_alone(config)
    evaluators = config.test_evaluator if isinstance(config.test_evaluator, list) else [config.test_evaluator]
    evaluator = Evaluator(evaluators)
    for metric in evaluator.metrics:
        if hasattr(metric, 'use_cluster_sizes'):
            metric.use_cluster_sizes(model.assignment.sizes)
    return _Scoring(protocol, config, Predictor(config.model.test_cfg, model), evaluator)


def _score(model: UnsupervisedSegmentor, scorings: Sequence[_Scoring]) -> None:
    """Score by protocols that see the same images."""
    config = scorings[0].config
    dataset = DATASETS.build(config.test_dataloader.dataset)
    loader = DataLoader(dataset, batch_size=config.test_dataloader.batch_size, collate_fn=pseudo_collate)
    for scoring in scorings:
        scoring.evaluator.dataset_meta = dataset.metainfo
    start = time.monotonic()
    with torch.no_grad(), without_tables():
        for batch in track(loader, f'scoring by {", ".join(scoring.protocol.name for scoring in scorings)}'):
            inputs = _frozen(model, batch['inputs'], scorings)
            for scoring in scorings:
                begin = time.monotonic()
                model.predictor = scoring.predictor
                samples = [sample.clone() for sample in batch['data_samples']]
                samples = model.test_step(dict(batch, inputs=inputs, data_samples=samples))
                scoring.evaluator.process(data_samples=samples, data_batch=batch)
                scoring.seconds += time.monotonic() - begin
        shared = time.monotonic() - start - sum(scoring.seconds for scoring in scorings)
        for scoring in scorings:
            scores = scoring.evaluator.evaluate(len(dataset))
            scoring.scores = {name: float(value) for name, value in scores.items() if isinstance(value, (int, float))}
            scoring.seconds += shared


def _frozen(
    model: UnsupervisedSegmentor, images: Sequence[Tensor], scorings: Sequence[_Scoring]
) -> Sequence[Tensor] | list[FrozenItem]:
    """What is frozen of images, once for all; the images themselves where one of the protocols cuts windows of them."""
    options = [scoring.predictor.options for scoring in scorings]
    half = next(model.parameters()).dtype != torch.float32
    if len(scorings) == 1 or half or any(each.mode == 'slide' for each in options):
        return images
    names = [FEATURES, *([MIRRORED] if any(each.flip for each in options) else [])]
    part = FrozenPart(model.backbone, {}, model.data_preprocessor, features_alone(model.backbone))
    items: dict[int, FrozenItem] = {}
    for numbers, fields in part.compute(images, names, training=False):
        for place, number in enumerate(numbers):
            image = images[number]
            frozen: dict[str, Any] = {name: values[place] for name, values in fields.items()}
            items[number] = FrozenItem(size=(image.shape[-2], image.shape[-1]), image=image, **frozen)
    return [items[number] for number in range(len(images))]
