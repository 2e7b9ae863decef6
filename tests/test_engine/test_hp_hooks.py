"""The hooks of HP in runs of mmengine's runner: pools, clipping, random generators, resume, two processes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from two_ranks import on_two_ranks

import omh_mmseg  # noqa: F401
from omh_mmseg.engine.hooks import ReferencePoolHook, SubmoduleGradientClipHook
from omh_mmseg.registry import MODELS

MODEL = dict(
    type='HiddenPositives',
    num_classes=4,
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
    cluster_probe=dict(type='ClusterProbe'),
    linear_probe=dict(type='LinearProbe'),
    hidden_positive_loss=dict(
        type='HiddenPositiveLoss', temperature=0.6, random_negatives=0.3, consistency_weight=0.05
    ),
    pool_size=10,
    warmup=2,
)
HOOKS_OF_A_RUN = [
    dict(type='RandomStateHook'),
    dict(type='ReferencePoolHook', renew_interval=4),
    dict(type='SubmoduleGradientClipHook', module='decode_head', max_norm=0.05),
]
STEPS, BATCH, IMAGES = 12, 4, 24


class Pictures(Dataset):
    """Random 32 x 32 pictures with labels; remembers which were asked for."""

    metainfo = dict(classes=('a', 'b', 'c', 'd'), palette=[[0, 0, 0], [9, 9, 9], [99, 99, 99], [199, 199, 199]])

    def __init__(self, count: int = IMAGES) -> None:
        generator = torch.Generator().manual_seed(1)
        self.images = torch.randint(0, 256, (count, 3, 32, 32), generator=generator, dtype=torch.uint8)
        self.labels = torch.randint(0, 4, (count, 1, 32, 32), generator=generator)
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        self.asked.append(index)
        info = dict(img_path=f'{index}.png', img_shape=(32, 32), ori_shape=(32, 32))
        sample = SegDataSample(gt_sem_seg=PixelData(data=self.labels[index]), metainfo=info)
        return dict(inputs=self.images[index], data_samples=sample)


class Diary(Hook):
    """Keeps the losses, and the pools as they are when a step begins."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.losses: dict[int, float] = {}
        self.pools: dict[int, Tensor] = {}
        self.agnostic: dict[int, Tensor] = {}

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: object = None) -> None:
        self.pools[runner.iter] = runner.model.specific_pool.clone()
        self.agnostic[runner.iter] = runner.model.agnostic_pool.clone()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: object = None, outputs: dict | None = None
    ) -> None:
        self.losses[runner.iter] = float(outputs['loss'])


@pytest.fixture(autouse=True)
def scope(mmseg_scope: None) -> None:
    """mmseg's registries and a fixed seed."""


def build_model(**parts) -> nn.Module:
    torch.manual_seed(7)
    model = MODELS.build(copy.deepcopy(MODEL) | parts)
    model.init_weights()
    return model


@pytest.fixture
def train(tmp_path) -> Callable[..., tuple[Runner, Diary]]:
    """``train(name, ...)``: twelve steps with a checkpoint of each; ``resume`` names one to go on from."""

    def run(
        name: str, hooks: list[dict] | None = None, resume: Path | None = None, steps: int = STEPS,
        load_from: Path | None = None, seed: int = 3,
    ) -> tuple[Runner, Diary]:  # fmt: skip
        diary = Diary()
        loader = dict(
            batch_size=BATCH, num_workers=0, dataset=Pictures(), sampler=dict(type='InfiniteSampler', shuffle=True),
            collate_fn=dict(type='pseudo_collate'), drop_last=True,
        )  # fmt: skip
        runner = Runner(
            model=build_model(),
            work_dir=str(tmp_path / name),
            train_dataloader=loader,
            train_cfg=dict(type='IterBasedTrainLoop', max_iters=steps, val_interval=5),
            val_dataloader=loader | dict(sampler=dict(type='DefaultSampler', shuffle=False), drop_last=False),
            val_cfg=dict(type='ValLoop'),
            val_evaluator=dict(type='UnsupervisedIoUMetric'),
            optim_wrapper=dict(
                type='OptimWrapper',
                constructor='TrainableOptimWrapperConstructor',
                optimizer=dict(type='AdamW', lr=1e-2, weight_decay=0.1),
            ),
            default_hooks=dict(
                checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1),
                logger=dict(type='LoggerHook', interval=100, log_metric_by_epoch=False),
            ),
            custom_hooks=[*copy.deepcopy(HOOKS_OF_A_RUN if hooks is None else hooks), diary],
            log_processor=dict(by_epoch=False),
            log_level='ERROR',
            default_scope='mmseg',
            randomness=dict(seed=seed),
            resume=resume is not None,
            load_from=str(resume or load_from) if resume or load_from else None,
            experiment_name=f'{tmp_path.name}_{name}',
        )
        runner.train()
        return runner, diary

    return run


def test_pools_are_filled_before_training_and_renewed_on_schedule(train):
    """docs/methods/hp.md 3B.4: before steps 4 and 10, the fifth of each epoch of 24 / 4 = 6; R_ag never."""
    runner, diary = train('run')
    changed = [step for step in range(1, STEPS) if not torch.equal(diary.pools[step], diary.pools[step - 1])]
    assert changed == [4, 10]
    assert all(torch.equal(diary.agnostic[step], diary.agnostic[0]) for step in range(STEPS))
    for pool in (diary.agnostic[0], diary.pools[0], diary.pools[11]):
        torch.testing.assert_close(pool.norm(dim=1), torch.ones(10))
        assert len(pool.unique(dim=0)) == 10
    assert runner.model.total_iterations == STEPS


def test_pools_of_other_images_each_time(train):
    asked = []
    fill = ReferencePoolHook._fill

    def listening_fill(self: ReferencePoolHook, runner: Runner, names: tuple) -> None:
        runner.train_dataloader.dataset.asked.clear()
        fill(self, runner, names)
        asked.append(list(runner.train_dataloader.dataset.asked))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReferencePoolHook, '_fill', listening_fill)
        train('run')
        first = copy.deepcopy(asked)
        asked.clear()
        train('again')
    assert asked == first and len(first) == 3
    assert all(len(set(images)) == 10 for images in first)
    assert first[0] != first[1] != first[2]


@pytest.mark.parametrize('step', [6, 5, 10], ids=['inside a period', 'before a validation', 'before a renewal'])
def test_resume_continues_bit_by_bit(train, tmp_path, step):
    """Weights, average, pools, optimiser and every later loss."""
    whole, diary = train('whole')
    resumed, later = train('resumed', resume=tmp_path / 'whole' / f'iter_{step}.pth')
    assert sorted(later.losses) == list(range(step, STEPS))
    assert all(later.losses[number] == diary.losses[number] for number in later.losses)
    assert all(torch.equal(later.pools[number], diary.pools[number]) for number in later.pools)
    for (name, one), other in zip(whole.model.state_dict().items(), resumed.model.state_dict().values()):
        assert torch.equal(one, other), name
    for one, other in zip(whole.optim_wrapper.optimizer.state.values(), resumed.optim_wrapper.optimizer.state.values()):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_without_seeded_steps_a_resumed_run_differs(train, tmp_path):
    """Else the test above would say little."""
    hooks = HOOKS_OF_A_RUN[1:]
    _, diary = train('whole', hooks)
    _, later = train('resumed', hooks, resume=tmp_path / 'whole' / 'iter_6.pth')
    assert torch.equal(later.pools[6], diary.pools[6])
    assert later.losses[6] != diary.losses[6]


def test_a_new_run_from_old_weights_fills_its_own_pools(train, tmp_path):
    """``load_from`` starts at step 0: pools, generators and steps of the other run are not taken over."""
    runner, _ = train('first', steps=3)
    second, diary = train('second', steps=3, load_from=tmp_path / 'first' / 'iter_3.pth', seed=4)
    assert int(second.model.iteration) == 3
    assert not torch.equal(diary.agnostic[0], runner.model.agnostic_pool)
    assert not torch.equal(diary.pools[0], runner.model.specific_pool)


class DrawingPictures(Pictures):
    """Pictures whose brightness is drawn anew each time."""

    def __getitem__(self, index: int) -> dict:
        item = super().__getitem__(index)
        return dict(item, inputs=(item['inputs'] * torch.rand(())).to(torch.uint8))


@pytest.mark.parametrize('pictures', [Pictures, DrawingPictures])
def test_pools_do_not_depend_on_who_loads_the_images(pictures):
    pools = {}
    for workers, step in ((0, 0), (2, 0), (0, 1)):
        runner = runner_around(build_model(), step=step)
        runner.train_dataloader = DataLoader(pictures(), batch_size=BATCH, collate_fn=pseudo_collate)
        hook = ReferencePoolHook(4, num_workers=workers)
        torch.manual_seed(1)
        hook.before_train(runner)
        pools[workers, step] = runner.model.agnostic_pool
    assert torch.equal(pools[0, 0], pools[2, 0]) and not torch.equal(pools[0, 0], pools[0, 1])


def test_mixed_precision():
    """Pools are filled under the autocast of the wrapper, and stay in single precision."""
    exact, rounded = build_model(), build_model()
    for model, dtype in ((exact, None), (rounded, torch.bfloat16)):
        runner = runner_around(model)
        if dtype is not None:
            runner.optim_wrapper.optim_context = lambda _: torch.autocast('cpu', dtype=torch.bfloat16)
        torch.manual_seed(5)
        ReferencePoolHook(4).before_train(runner)
    assert rounded.specific_pool.dtype == torch.float32
    torch.testing.assert_close(rounded.specific_pool, exact.specific_pool, rtol=0, atol=0.05)
    assert not torch.equal(rounded.specific_pool, exact.specific_pool)


# ---- clipping


@pytest.mark.parametrize('scaled', [False, True])
def test_clips_the_norm_of_one_part_after_unscaling(scaled):
    """docs/methods/hp.md 3B.10: neither the project head nor the probes are touched."""
    torch.manual_seed(0)
    model = nn.ModuleDict(dict(decode_head=nn.Linear(3, 3), other=nn.Linear(3, 3)))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    # What AmpOptimWrapper, which needs a GPU, does in update_params.
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**16, enabled=scaled)
    wrapper = SimpleNamespace(optimizer=optimizer, loss_scaler=scaler)
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper)
    hook = SubmoduleGradientClipHook('decode_head', 0.5)
    hook.before_train(runner)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    inputs = torch.randn(5, 3)

    def loss() -> Tensor:
        return 100 * (model['decode_head'](inputs).square().mean() + model['other'](inputs).square().mean())

    expected = dict(zip(before, torch.autograd.grad(loss(), list(model.parameters()))))
    norm = torch.stack([expected[name].norm() for name in expected if name.startswith('decode_head')]).norm()
    assert norm > 1
    scaler.scale(loss()).backward()
    scaler.step(optimizer)
    for name, value in model.named_parameters():
        factor = 0.5 / (norm + 1e-6) if name.startswith('decode_head') else 1
        torch.testing.assert_close(before[name] - value, factor * expected[name], rtol=1e-4, atol=1e-5)
    figures = [dict(loss=torch.tensor(1.0)) for _ in range(2)]
    for outputs in figures:
        hook.after_train_iter(runner, 0, outputs=outputs)
    # The second step stands for one that only accumulates gradients.
    assert [list(outputs) for outputs in figures] == [['loss', 'gradient_norm_decode_head'], ['loss']]
    torch.testing.assert_close(figures[0]['gradient_norm_decode_head'], norm, rtol=1e-4, atol=0.0)
    hook.after_train(runner)
    assert not optimizer._optimizer_step_pre_hooks


def test_errors_of_the_clipping():
    with pytest.raises(ValueError, match='max_norm must be .*; got 0'):
        SubmoduleGradientClipHook('decode_head', 0)
    model = nn.ModuleDict(dict(decode_head=nn.Linear(3, 3), frozen=nn.Linear(3, 3).requires_grad_(False)))
    wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1.0))
    runner = SimpleNamespace(model=model, optim_wrapper=wrapper)
    with pytest.raises(ValueError, match="no submodule 'head'; it has decode_head, frozen"):
        SubmoduleGradientClipHook('head', 1.0).before_train(runner)
    with pytest.raises(ValueError, match='model.frozen has no trainable parameter'):
        SubmoduleGradientClipHook('frozen', 1.0).before_train(runner)
    fused = torch.optim.AdamW(model.decode_head.parameters(), fused=True)
    runner.optim_wrapper = SimpleNamespace(optimizer=fused, loss_scaler=object())
    with pytest.raises(ValueError, match='remove fused=True'):
        SubmoduleGradientClipHook('decode_head', 1.0).before_train(runner)


# ---- errors


def runner_around(model: nn.Module, images: int = IMAGES, step: int = 0) -> SimpleNamespace:
    loader = DataLoader(Pictures(images), batch_size=BATCH, collate_fn=pseudo_collate)
    wrapper = OptimWrapper(torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2))
    messages: list[str] = []
    logger = SimpleNamespace(warning=messages.append)
    return SimpleNamespace(
        model=model, train_dataloader=loader, optim_wrapper=wrapper, iter=step, max_iters=9, seed=3, logger=logger,
        messages=messages,
    )  # fmt: skip


def test_pool_larger_than_the_data():
    message = 'pool of 10 rows .* the train set has 9. Set model.pool_size to at most 9'
    with pytest.raises(ValueError, match=message):
        ReferencePoolHook(4).before_train(runner_around(build_model(), images=9))
    ReferencePoolHook(4).before_train(runner_around(build_model(), images=10))


@pytest.mark.parametrize('options', [dict(renew_interval=0), dict(renew_interval=1, epoch_length=0)])
def test_renew_interval_below_one(options):
    with pytest.raises(ValueError, match='must be a whole number in .*; got 0'):
        ReferencePoolHook(**options)


def test_another_host():
    runner = runner_around(nn.Linear(2, 2))
    with pytest.raises(TypeError, match='pools of HiddenPositives and the model is Linear. Remove the hook'):
        ReferencePoolHook(4).before_train(runner)


def test_length_of_an_epoch_and_of_the_training():
    model = build_model(total_iterations=100)
    hook = ReferencePoolHook(4)
    hook.before_train(runner_around(model, images=23))
    assert (hook.epoch_length, model.total_iterations) == (5, 100)
    given = ReferencePoolHook(4, epoch_length=7)
    given.before_train(runner_around(build_model()))
    assert given.epoch_length == 7


# ---- two processes


def _train_rank(folder: Path, rank: int) -> None:
    """Fill, train three steps, save; then resume from the file of rank 0 and compare."""
    from mmengine.model import MMDistributedDataParallel

    init_default_scope('mmseg')
    model = build_model()
    wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
    runner = runner_around(model)
    runner.model = wrapped
    hook = ReferencePoolHook(2)
    hook.before_train(runner)
    torch.manual_seed(100 + rank)
    for step in range(3):
        runner.iter = step
        hook.before_train_iter(runner, step)
        items = [runner.train_dataloader.dataset[index] for index in range(4 * rank + step, 4 * rank + step + 4)]
        wrapped.train_step(pseudo_collate(items), runner.optim_wrapper)
    checkpoint = dict(state_dict=model.state_dict())
    hook.before_save_checkpoint(runner, checkpoint)
    torch.save(checkpoint, folder / f'{rank}.pth')
    torch.distributed.barrier()
    loaded = torch.load(folder / '0.pth')
    resumed = build_model()
    resumed.load_state_dict(loaded['state_dict'])
    later = runner_around(resumed, step=3)
    again = ReferencePoolHook(2)
    again.after_load_checkpoint(later, loaded)
    again.before_train(later)
    names = ('agnostic_pool', 'specific_pool')
    same = {name: torch.equal(getattr(resumed, name), getattr(model, name)) for name in names}
    torch.save(dict(same=same, epoch_length=hook.epoch_length), folder / f'resumed_{rank}.pth')


def test_two_processes(tmp_path):
    """Each rank has pools of its own; weights and average agree; a resumed rank has its own pools back."""
    on_two_ranks(partial(_train_rank, tmp_path), tmp_path)
    first, second = (torch.load(tmp_path / f'{rank}.pth') for rank in range(2))
    for name, value in first['state_dict'].items():
        assert torch.equal(value, second['state_dict'][name]) == (name not in ('agnostic_pool', 'specific_pool')), name
    for name, pools in first['reference_pools'].items():
        assert torch.equal(pools, second['reference_pools'][name]) and len(pools) == 2
        for rank, checkpoint in enumerate((first, second)):
            assert torch.equal(pools[rank], checkpoint['state_dict'][name])
    for rank in range(2):
        result = torch.load(tmp_path / f'resumed_{rank}.pth')
        assert result['same'] == dict(agnostic_pool=True, specific_pool=True)
        assert result['epoch_length'] == IMAGES // (BATCH * 2)
    alone = build_model()
    alone.load_state_dict(first['state_dict'])
    runner = runner_around(alone, step=3)
    hook = ReferencePoolHook(2)
    hook.after_load_checkpoint(runner, first)
    hook.before_train(runner)
    assert torch.equal(alone.agnostic_pool, first['state_dict']['agnostic_pool'])
    assert runner.messages == [
        'The checkpoint holds the reference pools of 2 ranks and this run has 1: all start with those of rank 0.'
    ]
