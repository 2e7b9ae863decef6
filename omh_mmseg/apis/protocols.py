"""One checkpoint scored by several protocols."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from torch.utils.data import DataLoader

from omh_mmseg.apis.scoring import score_model
from omh_mmseg.evaluation.protocols import apply_protocol
from omh_mmseg.models.segmentors import UnsupervisedSegmentor
from omh_mmseg.registry import DATASETS
from omh_mmseg.structures.protocols import Protocol, resolve
from omh_mmseg.utils.config import replace_settings

COLUMNS = ('/mIoU', '/aAcc')


def compare_protocols(
    model: UnsupervisedSegmentor, config: Config, names: Sequence[str], options: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """Score a model on the test split by each protocol; those that differ in their name alone are computed once.

    Args:
        model: On its device; its prediction options are put back at the end.
        config: Of the model; not changed.
        names: See `omh_mmseg.structures.protocols.resolve`.
        options: Settings that replace those of every protocol's config.

    Returns:
        For each name ``protocol`` (settings), ``scores`` (metric -> percent) and ``seconds``.

    Raises:
        ValueError: An unknown protocol, or a test pipeline that it cannot rewrite.
    """
    protocols = [resolve(name) for name in names]
    results: dict[str, dict[str, Any]] = {}
    training, test_cfg = model.training, model.test_cfg
    model.eval()
    try:
        for protocol in protocols:
            key = str({name: value for name, value in protocol.settings().items() if name != 'name'})
            if key not in results:
                results[key] = _score(model, config, protocol, options or {})
            results[protocol.name] = dict(results[key], protocol=protocol.settings())
    finally:
        model.use_test_cfg(test_cfg)
        model.train(training)
    return [results[protocol.name] for protocol in protocols]


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


def _score(
    model: UnsupervisedSegmentor, config: Config, protocol: Protocol, options: Mapping[str, Any]
) -> dict[str, Any]:
    config = deepcopy(config)
    apply_protocol(config, protocol)
    replace_settings(config, options)
    model.use_test_cfg(config.model.test_cfg)
    dataset = DATASETS.build(config.test_dataloader.dataset)
    loader = DataLoader(dataset, batch_size=config.test_dataloader.batch_size, collate_fn=pseudo_collate)
    evaluators = config.test_evaluator if isinstance(config.test_evaluator, list) else [config.test_evaluator]
    evaluator = Evaluator(evaluators)
    evaluator.dataset_meta = dataset.metainfo
    start = time.monotonic()
    scores = score_model(model, loader, evaluator, f'scoring by {protocol.name}')
    return dict(scores=scores, seconds=round(time.monotonic() - start, 2))
