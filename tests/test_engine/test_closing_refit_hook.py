"""The closing refit in runs of mmengine's runner: when it happens, what it sees, what checkpoints hold, and resumes."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import omh_mmseg  # noqa: F401
from omh_mmseg.engine.hooks import ClosingRefitHook
from omh_mmseg.engine.hooks.closing_refit_hook import BEFORE
from omh_mmseg.engine.refit import collect_codes, named_fields, refit_model
from omh_mmseg.models.prediction.cluster_bias import clusterings
from omh_mmseg.registry import MODELS

MODEL = dict(
    type='SmooSeg',
    num_classes=3,
    data_preprocessor=dict(type='ViewsDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3),
    backbone=dict(
        type='FrozenBackbone',
        backbone=dict(
            type='mmpretrain.VisionTransformer',
            arch=dict(embed_dims=24, num_layers=1, num_heads=3, feedforward_channels=48),
            img_size=32,
            patch_size=8,
            out_type='featmap',
        ),
    ),
    decode_head=dict(type='ProjectionHead', channels=10),
    cluster_probe=dict(type='PrototypeHead'),
    smoothness_loss=dict(type='SmoothnessEnergyLoss', within_shift=-0.02, across_shift=0.5),
    omh_head=dict(type='OMHHead', num_levels=2, reach=dict(type='HostShare', begin=2)),
)
FIELDS = ['pred_sem_seg', 'pred_level1', 'pred_level2']
IMAGES = 9


class Squares(Dataset):
    """Pictures of coloured squares, with labels that a number shifts, or without."""

    metainfo = dict(classes=('a', 'b', 'c'), palette=[[0, 0, 0], [9, 9, 9], [99, 99, 99]])

    def __init__(self, labels: int | None = 0) -> None:
        generator = torch.Generator().manual_seed(1)
        cells = torch.randint(0, 256, (IMAGES, 3, 4, 4), generator=generator, dtype=torch.uint8)
        self.images = cells.repeat_interleave(8, 2).repeat_interleave(8, 3)
        self.labels = labels

    def __len__(self) -> int:
        return IMAGES

    def __getitem__(self, index: int) -> dict:
        sample = SegDataSample(metainfo=dict(img_path=f'{index}.png', img_shape=(32, 32), ori_shape=(32, 32)))
        if self.labels is not None:
            sample.gt_sem_seg = PixelData(data=(torch.arange(1024).view(1, 32, 32) + self.labels) % 3)
        return dict(inputs=self.images[index], data_samples=sample)


@pytest.fixture(autouse=True)
def scope(mmseg_scope: None) -> None:
    """mmseg's registries and a fixed seed."""


def build_model(**parts: Any) -> Any:
    torch.manual_seed(7)
    model = MODELS.build(copy.deepcopy(MODEL) | parts)
    model.init_weights()
    return model


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Runner]:
    """``train(name, which)``: five steps with checkpoints of the fourth and the last."""

    def run(
        name: str, which: Any = 'all', steps: int = 5, resume: Path | None = None, labels: int | None = 0, **hook: Any
    ) -> Runner:
        loader = dict(
            batch_size=3, num_workers=0, dataset=Squares(labels), collate_fn=dict(type='pseudo_collate'),
            sampler=dict(type='SeededInfiniteSampler', shuffle=True), drop_last=True,
        )  # fmt: skip
        validation = dict(
            val_dataloader=loader | dict(sampler=dict(type='DefaultSampler', shuffle=False), drop_last=False),
            val_cfg=dict(type='ValLoop'),
            val_evaluator=dict(type='UnsupervisedIoUMetric'),
        )
        runner = Runner(
            model=build_model(),
            work_dir=str(tmp_path / name),
            train_dataloader=loader,
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=steps),
            **({} if labels is None else validation),
            optim_wrapper=dict(
                type='OptimWrapper', constructor='TrainableOptimWrapperConstructor',
                optimizer=dict(type='AdamW', lr=1e-2),
            ),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4, max_keep_ckpts=3, save_last=True),
                logger=dict(type='LoggerHook', interval=100, log_metric_by_epoch=False),
            ),
            custom_hooks=[
                dict(type='RandomStateHook'), dict(type='AssignmentHook'), dict(type='CheckpointCheckHook'),
                dict(type='ResumedValidationHook'), *([] if which is None else
                [dict(type='ClosingRefitHook', clusterings=which) | hook]),
            ],
            log_processor=dict(by_epoch=False), log_level='ERROR', default_scope='mmseg', randomness=dict(seed=3),
            resume=resume is not None, load_from=None if resume is None else str(resume),
        )  # fmt: skip
        runner.train()
        return runner

    return run


def centres_of(model: Any) -> dict[str, Tensor]:
    return {field: centres.detach().clone() for field, centres in clusterings(model).items()}


def checkpoint(runner: Runner, step: int = 5) -> dict:
    return torch.load(Path(runner.work_dir) / f'iter_{step}.pth', weights_only=True)


def same_weights(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_it_follows_the_last_step_and_precedes_checkpoint_and_validation(train) -> None:
    plain, refitted = train('plain', None), train('refitted')
    trained = centres_of(plain.model)
    for field, before in checkpoint(refitted)[BEFORE].items():
        assert torch.equal(before, trained[field])
    model = build_model()
    model.load_state_dict(checkpoint(plain)['state_dict'])
    loader = DataLoader(Squares(), batch_size=3, collate_fn=plain.train_dataloader.collate_fn)
    refit_model(model, collect_codes(model, loader, 3), FIELDS)
    model.assignment.update(refitted.model.assignment.as_dict())
    assert same_weights(model.state_dict(), checkpoint(refitted)['state_dict'])
    assert any(not torch.equal(centres, trained[field]) for field, centres in centres_of(model).items())
    for field, centres in centres_of(model).items():
        torch.testing.assert_close(centres.norm(dim=1), trained[field].norm(dim=1))
    assert BEFORE not in checkpoint(refitted, 4) and not any('cluster_bias' in key for key in checkpoint(refitted, 4))


def test_clusters_that_lie_apart_are_left() -> None:
    """Blobs without anything between them keep their clusters under any prior; noise around them does not.

    Where all positions are in one cluster, any prior keeps that as well, and the others are said to have none.
    """
    generator = torch.Generator().manual_seed(0)
    for spread, left in ((0.01, True), (1.5, False), (0.0, False)):
        model = build_model()
        before = centres_of(model)
        blobs = torch.nn.functional.normalize(before['pred_sem_seg'], dim=1).repeat_interleave(
            torch.tensor([2800, 800, 400] if spread else [4000, 0, 0]), dim=0
        )
        codes = torch.nn.functional.normalize(blobs + spread * torch.randn(blobs.shape, generator=generator), dim=1)
        found = refit_model(model, codes, ['pred_sem_seg'], leave_apart=True)
        assert (found == {}) == left
        assert torch.equal(clusterings(model)['pred_sem_seg'], before['pred_sem_seg']) == left
        assert (model.cluster_bias.of('pred_sem_seg') is None) == left
        assert (refit_model(build_model(), codes, ['pred_sem_seg'])['pred_sem_seg'].delta == 0.4) == (spread < 1)


def test_what_was_left_is_no_refit(train, tmp_path, monkeypatch) -> None:
    """A finished run whose clusters were left may still be refitted, and its checkpoint says of none that it was."""
    from omh_mmseg.engine import refit as module

    chosen = module.refit
    monkeypatch.setattr(module, 'refit', lambda *given: dataclasses.replace(chosen(*given), delta=module.DELTAS[0]))
    runner = train('left', leave_apart=True)
    saved = checkpoint(runner)
    assert 'before_closing_refit' not in saved
    assert not any(key.startswith('cluster_bias.') for key in saved['state_dict'])
    again = train('left', leave_apart=True, resume=Path(runner.work_dir) / 'iter_5.pth')
    assert same_weights(checkpoint(again)['state_dict'], saved['state_dict'])
    monkeypatch.setattr(module, 'refit', chosen)
    refitted = train('left', resume=Path(runner.work_dir) / 'iter_5.pth')
    assert set(checkpoint(refitted)['before_closing_refit']) == set(FIELDS)
    assert sum(key.startswith('cluster_bias.') for key in checkpoint(refitted)['state_dict']) == len(FIELDS)


def test_none_leaves_a_run_as_it_was(train) -> None:
    plain, off = train('plain', None), train('off', 'none')
    assert same_weights(checkpoint(plain)['state_dict'], checkpoint(off)['state_dict'])
    assert BEFORE not in checkpoint(off)


@pytest.mark.parametrize('which', ['levels', ['probe'], ['probe', 'level2']])
def test_only_the_named_clusterings(train, which) -> None:
    refitted, trained = train('refitted', which), centres_of(train('plain', None).model)
    named = named_fields(refitted.model, which)
    assert set(checkpoint(refitted)[BEFORE]) == set(named)
    for field, centres in centres_of(refitted.model).items():
        assert torch.equal(centres, trained[field]) == (field not in named), field
        assert refitted.model.cluster_bias.of(field) is None or field in named


def test_no_label_takes_part(train) -> None:
    weights = [
        {key: value for key, value in checkpoint(train(f'labels {labels}', labels=labels))['state_dict'].items()
         if not key.startswith('assignment')}
        for labels in (0, 1, None)
    ]  # fmt: skip
    assert same_weights(weights[0], weights[1]) and same_weights(weights[0], weights[2])


def test_a_longer_run_goes_on_from_what_the_training_left(train, tmp_path) -> None:
    train('first')
    longer = train('longer', steps=8, resume=tmp_path / 'first' / 'iter_5.pth')
    straight = train('straight', steps=8)
    assert same_weights(checkpoint(longer, 8)['state_dict'], checkpoint(straight, 8)['state_dict'])


def test_a_finished_run_is_refitted_once(train, tmp_path) -> None:
    train('plain', 'none')
    resumed = train('plain', resume=tmp_path / 'plain' / 'iter_5.pth')
    expected = checkpoint(train('refitted'))
    found = checkpoint(resumed)
    assert same_weights(found['state_dict'], expected['state_dict']) and found['meta']['iter'] == 5
    again = train('plain', resume=tmp_path / 'plain' / 'iter_5.pth')
    assert same_weights(again.model.state_dict(), expected['state_dict'])


def test_levels_are_those_of_omh() -> None:
    model = build_model()
    assert named_fields(model, 'levels') == ['pred_level1', 'pred_level2'] and named_fields(model, 'none') == []
    assert named_fields(model, 'all') == FIELDS and named_fields(build_model(omh_head=None), 'levels') == []


def test_unknown_clusterings_end_a_run_before_it_begins(train) -> None:
    with pytest.raises(ValueError, match='asked for level3, propes; the model has .*probe, level1, level2'):
        train('x', ['level3', 'propes'])
    with pytest.raises(ValueError, match='asked for every'):
        train('y', 'every')


def test_options_are_checked() -> None:
    for wrong in (dict(positions=0), dict(max_codes=0), dict(delta=-0.1)):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ClosingRefitHook(**wrong)
    with pytest.raises(ValueError, match=r'leave_apart looks at the size prior that is chosen, and delta=0.1 is fixed'):
        ClosingRefitHook(delta=0.1, leave_apart=True)
    with pytest.raises(ValueError, match='leave_apart'):
        ClosingRefitHook(leave_apart='yes')


def test_codes_are_drawn_of_every_image_whoever_reads_it() -> None:
    model, dataset = build_model(), Squares()
    loader = DataLoader(dataset, batch_size=4, collate_fn=list_of)
    codes = collect_codes(model, loader, 3, 5)
    assert codes.shape == (5 * IMAGES, 10)
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(len(codes)))
    singly = collect_codes(model, DataLoader(dataset, batch_size=1, num_workers=2, collate_fn=list_of), 3, 5)
    torch.testing.assert_close(singly, codes, atol=1e-6, rtol=0)
    assert not torch.equal(collect_codes(model, loader, 4, 5), codes)
    assert len(collect_codes(model, loader, 3, 5, most=2 * IMAGES + 1)) == 2 * IMAGES
    assert len(collect_codes(model, loader, 3, 99)) == 16 * IMAGES
    assert model.training


def test_padding_is_left_out() -> None:
    model = build_model(data_preprocessor=MODEL['data_preprocessor'] | dict(size=(48, 64)))
    loader = DataLoader(Squares(), batch_size=2, collate_fn=list_of)
    assert len(collect_codes(model, loader, 3, 99)) == 4 * 4 * IMAGES


def list_of(items: list[dict]) -> dict:
    return {key: [item[key] for item in items] for key in items[0]}
