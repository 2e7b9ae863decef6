"""When the figures without labels are measured, and of which images."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from PIL import Image
from torch.utils.data import DataLoader

from omh_mmseg.engine.hooks import LabelFreeHook
from omh_mmseg.engine.hooks import label_free_hook as module
from omh_mmseg.models.prediction.label_free import LabelFreeMeter, measure_images
from omh_mmseg.registry import DATASETS, MODELS


class Meter:
    def __init__(self, model: Any) -> None:
        self.numbers: list[int] = []

    def state(self) -> torch.Tensor:
        return torch.tensor(self.numbers, dtype=torch.float64)

    def use_state(self, state: torch.Tensor) -> None:
        self.numbers = state.int().tolist()

    def scores(self) -> dict[str, float]:
        return {'label_free/probe/in_use': float(len(self.numbers))}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    calls: list[list[int]] = []

    def measure(meter: Meter, dataset: Any, numbers: list[int]) -> None:
        meter.numbers = list(numbers)
        calls.append(meter.numbers)

    monkeypatch.setattr(module, 'LabelFreeMeter', Meter)
    monkeypatch.setattr(module, 'measure_images', measure)
    monkeypatch.setattr(module.DATASETS, 'build', lambda config: list(range(config['length'])))
    return calls


def runner(**model: Any) -> SimpleNamespace:
    model.setdefault('prediction_code', None)
    cfg = Config(dict(val_dataloader=dict(dataset=dict(length=9)), test_dataloader=dict(dataset=dict(length=2))))
    return SimpleNamespace(cfg=cfg, model=SimpleNamespace(**model))


@pytest.mark.parametrize(
    ('when', 'scores', 'expected'),
    [('no_labels', {}, True), ('no_labels', {'probe/mIoU': 1.0}, False), ('always', {'probe/mIoU': 1.0}, True),
     ('never', {}, False)],
)  # fmt: skip
def test_when(measured: list, when: str, scores: dict, expected: bool) -> None:
    metrics = dict(scores)
    LabelFreeHook(when, images=4).after_val_epoch(runner(), metrics)
    assert metrics == scores | ({'label_free/probe/in_use': 4.0} if expected else {})
    assert measured == ([[0, 3, 5, 8]] if expected else [])


def test_few_images_other_models_and_wrappers(measured: list) -> None:
    hook = LabelFreeHook(images=4)
    hook.after_test_epoch(runner(), {})
    hook.after_test_epoch(runner(module=SimpleNamespace(prediction_code=None)), {})
    assert measured == [[0, 1], [0, 1]]
    other = runner()
    del other.model.prediction_code
    hook.after_test_epoch(other, {})
    hook.after_val_epoch(runner(), None)
    assert len(measured) == 2
    with pytest.raises(ValueError, match=r"when must be one of \('no_labels', 'always', 'never'\); got 'sometimes'"):
        LabelFreeHook('sometimes')


def test_processes_share_the_images(measured: list, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, 'get_dist_info', lambda: (1, 2))
    LabelFreeHook(images=9).after_val_epoch(runner(), {})
    assert measured == [[1, 3, 5, 7]]


def test_it_runs_before_the_scores_are_logged() -> None:
    from mmengine.hooks import RuntimeInfoHook
    from mmengine.hooks.hook import Hook
    from mmengine.runner.priority import get_priority

    assert isinstance(LabelFreeHook(), Hook)
    assert get_priority(LabelFreeHook.priority) < get_priority(RuntimeInfoHook.priority)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five photos without labels, of two sizes."""
    generator = np.random.default_rng(0)
    for number in range(5):
        pixels = generator.integers(0, 256, (40, 48 if number % 2 else 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'{number}.png')
    return tmp_path


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('labelled', [False, True])
def test_passes_of_the_prediction_are_shared(
    folder: Path, mmseg_scope: None, monkeypatch: pytest.MonkeyPatch, flip: bool, labelled: bool
) -> None:
    """Figures are those of a measurement by itself; the prediction is that of a model by itself."""
    dataset = dict(
        type='FolderSegDataset', data_root=str(folder), num_classes=3, test_mode=True,
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackSegInputs')],
    )  # fmt: skip
    model = MODELS.build(
        dict(
            type='SmooSeg', num_classes=3,
            backbone=dict(type='FrozenBackbone', backbone=dict(
                type='mmpretrain.ResNet', depth=18, out_indices=(1,), norm_cfg=dict(type='BN')), checkpoint=None),
            decode_head=dict(type='ProjectionHead', channels=6), cluster_probe=dict(type='PrototypeHead'),
            smoothness_loss=dict(type='SmoothnessEnergyLoss', within_shift=0.1, across_shift=0.3),
            data_preprocessor=dict(type='ViewsDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3),
            test_cfg=dict(flip=flip),
        )
    ).eval()  # fmt: skip
    images = DATASETS.build(dataset)
    loader = DataLoader(images, batch_size=2, collate_fn=pseudo_collate)
    passes: list[int] = []
    encode = model.encode
    monkeypatch.setattr(model, 'encode', lambda inputs: passes.append(len(inputs)) or encode(inputs))
    expected = LabelFreeMeter(model)
    measure_images(expected, images, [0, 2, 4])
    alone = [sample.pred_sem_seg.data for batch in loader for sample in model.val_step(batch)]

    run = SimpleNamespace(
        model=model, cfg=Config(dict(val_dataloader=dict(dataset=dataset))), val_loop=SimpleNamespace(dataloader=loader)
    )
    def twice() -> None:
        monkeypatch.setattr(images, 'get_data_info', lambda number: dict(img_path='same.png'))

    if labelled:
        info = images.get_data_info
        monkeypatch.setattr(images, 'get_data_info', lambda number: info(number) | dict(seg_map_path='label.png'))
    hook, predictor = LabelFreeHook(images=3), model.predictor
    hook.before_val_epoch(run)
    passes.clear()
    predicted = [sample.pred_sem_seg.data for batch in loader for sample in model.val_step(batch)]
    metrics: dict[str, float] = {}
    hook.after_val_epoch(run, metrics)
    assert all(torch.equal(one, other) for one, other in zip(predicted, alone)) and len(predicted) == 5
    assert model.predictor is predictor
    assert metrics == pytest.approx(expected.scores(), rel=1e-5)
    predictions = 5 * (1 + flip)
    assert sum(passes) == predictions + 3 * (3 if labelled else 2 - flip)
    # Nothing of an evaluation is left for the next one, nor of one that was cut off.
    again: dict[str, float] = {}
    hook.before_val_epoch(run)
    model.val_step(next(iter(loader)))
    hook.before_val_epoch(run)
    for batch in loader:
        model.val_step(batch)
    hook.after_val_epoch(run, again)
    assert again == metrics and model.predictor is predictor
    # In half precision, and where an image comes twice, it is measured by itself.
    for change in (lambda: setattr(run.val_loop, 'fp16', True), lambda: (delattr(run.val_loop, 'fp16'), twice())):
        change()
        hook.before_val_epoch(run)
        assert model.predictor is predictor
