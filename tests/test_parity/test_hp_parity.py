"""The package's HP against the straight-line derivation: same data, weights and random draws, 20 steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from straight_line_hp import Draws, Settings, StraightLineHP
from straight_line_stego import normalised
from torch import Tensor, nn
from torch.utils.data import DataLoader

from omh_mmseg.models.utils.photometric_view import PhotometricView
from omh_mmseg.registry import HOOKS, MODELS

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'hp_vit-s8_cityscapes.py'
STEPS, BATCH, CLASSES, CODE, IMAGES = 20, 4, 5, 6, 34
HEIGHT, WIDTH, PATCH, HEADS = 48, 64, 8, 3
PATCHES = HEIGHT * WIDTH // PATCH**2
VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=24, num_layers=2, num_heads=HEADS, feedforward_channels=48),
    img_size=(HEIGHT, WIDTH),
    patch_size=PATCH,
    out_type='featmap',
)
# docs/methods/hp.md 4.4, Cityscapes, but for the schedule, the pool and the clipping, which must act within twenty
# steps of epochs of 34 // 4 = 8.
CITYSCAPES = Settings(CLASSES, 0.6, 0.05, 0.02, 0.999, 4, STEPS, 14, 3, IMAGES // BATCH, 10.0)
CASES = dict(
    config=CITYSCAPES,
    coco_with_few_positives=replace(CITYSCAPES, tau=0.8, m=0.99, pool_size=33, renew_interval=2),
    potsdam=replace(CITYSCAPES, tau=0.4, alpha=0.0, rho=1.0, warmup=0, pool_size=5),
    clipped=replace(CITYSCAPES, clip=0.1, m=0.9, rho=0.3, alpha=2.0),
    without_reweighting=replace(CITYSCAPES, reweighting=False, m=0.5, warmup=9),
)
LOSS_NAMES = {
    'contrast': 'loss_contrast',
    'consistency': 'loss_consistency',
    'linear': 'loss_linear_probe',
    'cluster': 'loss_cluster_probe',
    'lambda': 'hp_specific_weight',
}


@dataclass
class Recorder:
    """What the package draws, in the order of its calls."""

    uniform: list[Tensor] = field(default_factory=list)
    integers: list[Tensor] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)
    views: list[Tensor] = field(default_factory=list)
    items: list[int] = field(default_factory=list)

    def forget(self) -> None:
        for drawn in (self.uniform, self.integers, self.masks, self.views, self.items):
            drawn.clear()

    def draws(self, settings: Settings) -> Draws:
        """The draws of one step. Images and their views go through the head together, images first."""
        uniform = torch.cat(self.uniform) if self.uniform else torch.zeros(PATCHES, BATCH * PATCHES)
        assert bool(self.uniform) == (settings.rho < 1) and uniform.shape == (PATCHES, BATCH * PATCHES)
        assert bool(self.views) == (settings.alpha > 0)
        linear, nonlinear, mixed, *ema, features = self.masks
        assert len(ema) == 3 and mixed.shape == ema[2].shape == (BATCH, CODE)
        drawn = Draws(
            (linear[:BATCH], nonlinear[:BATCH]), (linear[BATCH:], nonlinear[BATCH:]), mixed, tuple(ema), features,
            uniform.double(),
        )  # fmt: skip
        self.forget()
        return drawn


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Listens to ``torch.rand``, ``torch.randint``, channel dropout and the second view while the package trains."""
    heard = Recorder()
    rand, randint, dropout, view = torch.rand, torch.randint, F.dropout2d, PhotometricView.forward
    silent: list[bool] = []

    def listening_rand(*args: object, **kwargs: object) -> Tensor:
        drawn = rand(*args, **kwargs)
        if not silent:
            heard.uniform.append(drawn)
        return drawn.clone()

    def listening_randint(*args: object, **kwargs: object) -> Tensor:
        heard.integers.append(randint(*args, **kwargs))
        return heard.integers[-1].clone()

    def listening_dropout(maps: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        assert p == 0.1 and training
        mask = dropout(torch.ones_like(maps[:, :, :1, :1]), p, training)
        heard.masks.append(mask[:, :, 0, 0].double())
        return maps * mask

    def listening_view(self: PhotometricView, *args: Tensor) -> Tensor:
        silent.append(True)
        heard.views.append(view(self, *args))
        silent.clear()
        return heard.views[-1].clone()

    monkeypatch.setattr(torch, 'rand', listening_rand)
    monkeypatch.setattr(torch, 'randint', listening_randint)
    monkeypatch.setattr(F, 'dropout2d', listening_dropout)
    monkeypatch.setattr(PhotometricView, 'forward', listening_view)
    return heard


@dataclass
class TrainSet:
    """Blocky 8-bit images; remembers which ones were asked for."""

    recorder: Recorder
    images: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        self.recorder.items.append(index)
        return dict(inputs=self.images[index], data_samples=SegDataSample(metainfo=dict(img_shape=(HEIGHT, WIDTH))))


def blocky(count: int, generator: torch.Generator) -> Tensor:
    blocks = torch.randint(0, 256, (count, 3, 3, 4), generator=generator)
    noise = torch.randint(-30, 31, (count, 3, HEIGHT, WIDTH), generator=generator)
    large = blocks.repeat_interleave(HEIGHT // 3, 2).repeat_interleave(WIDTH // 4, 3)
    return (large + noise).clamp(0, 255).to(torch.uint8)


def build(settings: Settings, dtype: torch.dtype) -> tuple[nn.Module, Config]:
    """The model of the config file, with small sizes and a small random ViT."""
    config = Config.fromfile(str(CONFIG))
    model = config.model
    model.num_classes = CLASSES
    model.backbone = dict(type='FrozenBackbone', backbone=copy.deepcopy(VIT))
    model.decode_head.channels = CODE
    model.update(pool_size=settings.pool_size, warmup=settings.warmup)
    if settings is not CITYSCAPES:
        model.ema_momentum = settings.m
        model.hidden_positive_loss.update(
            temperature=settings.tau, consistency_weight=settings.alpha, random_negatives=settings.rho,
            reweighting=settings.reweighting,
        )  # fmt: skip
    built = MODELS.build(model)
    built.init_weights()
    with torch.no_grad():
        # Features of a fresh ViT are almost equal everywhere; the terms need high and low cosines.
        for parameter in built.backbone.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    built.to(dtype)
    built.train()
    return built, config


def hooks_of(config: Config, settings: Settings) -> list:
    """The hooks of the config file that take part in a step, with the case's numbers."""
    chosen = []
    for hook in copy.deepcopy(config.custom_hooks):
        if hook['type'] == 'ReferencePoolHook':
            chosen.append(HOOKS.build(hook | dict(renew_interval=settings.renew_interval)))
        elif hook['type'] == 'SubmoduleGradientClipHook':
            assert hook['max_norm'] == CITYSCAPES.clip
            chosen.append(HOOKS.build(hook | dict(max_norm=settings.clip)))
    assert len(chosen) == 2
    return chosen


def runner_of(model: nn.Module, wrapper: OptimWrapper, data: TrainSet) -> SimpleNamespace:
    loader = DataLoader(data, batch_size=BATCH, collate_fn=pseudo_collate)
    return SimpleNamespace(
        model=model, optim_wrapper=wrapper, train_dataloader=loader, iter=0, max_iters=STEPS, seed=0
    )


def bare_vit(model: nn.Module) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Features and attention between patches of normalised images, by mmpretrain's ViT and the formula of attention."""
    vit = MODELS.build(copy.deepcopy(VIT))
    vit.load_state_dict(model.backbone.backbone.state_dict())
    vit.to(next(model.parameters()).dtype)
    vit.eval()
    caught: list[Tensor] = []
    vit.layers[-1].attn.qkv.register_forward_hook(lambda _module, _inputs, output: caught.append(output))

    def run(images: Tensor) -> tuple[Tensor, Tensor]:
        caught.clear()
        with torch.no_grad():
            features = vit(images.to(next(vit.parameters()).dtype))[-1].double()
        q, k, _ = caught[0].double().unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        attention = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, dim=-1)
        return features, attention.mean(1)[:, 1:, 1:]

    return run


def weights_of(model: nn.Module, part: str) -> dict[str, Tensor]:
    """Parameters under the examiner's names."""
    if part in ('head', 'average'):
        head = model.decode_head if part == 'head' else model.ema_head.module
        layers = dict(linear=head.linear, hidden=head.nonlinear[0], out=head.nonlinear[2])
    else:
        layers = {'': dict(project=model.project_head, linear_probe=model.linear_probe.classifier)[part]}
    return {
        f'{name}.{kind}'.lstrip('.'): getattr(layer, kind)
        for name, layer in layers.items()
        for kind in ('weight', 'bias')
    }


def examiner(model: nn.Module, settings: Settings) -> StraightLineHP:
    parts = {
        part: {name: value.detach().double().clone() for name, value in weights_of(model, part).items()}
        for part in ('head', 'project', 'linear_probe')
    }
    centres = model.cluster_probe.centres.detach().double().clone()
    return StraightLineHP(settings, **parts, cluster_probe=dict(centres=centres))


def fill_pools(other: StraightLineHP, features: Callable, data: TrainSet, recorder: Recorder, both: bool) -> None:
    """The examiner's pools from the images, masks and patches that the package chose."""
    masks, patches, order = iter(recorder.masks), iter(recorder.integers), list(recorder.items)
    assert len(order) == len(set(order)) == other.settings.pool_size
    agnostic, specific = [], []
    for start in range(0, len(order), BATCH):
        feat, _ = features(normalised(data.images[order[start : start + BATCH]]))
        if both:
            agnostic.append(other.agnostic_rows(feat, next(masks), next(patches)))
        specific.append(other.specific_rows(feat, (next(masks), next(masks), next(masks)), next(patches)))
    if both:
        other.pool_ag = torch.cat(agnostic)
    other.pool_sp = torch.cat(specific)
    assert next(masks, None) is next(patches, None) is None
    recorder.forget()


def train_both(
    settings: Settings, dtype: torch.dtype, recorder: Recorder
) -> tuple[nn.Module, StraightLineHP, list[tuple[dict, dict]], int]:
    """Twenty steps of both sides; the models, the losses of every step and how often pools were renewed."""
    model, config = build(settings, dtype)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    generator = torch.Generator().manual_seed(1)
    data = TrainSet(recorder, blocky(IMAGES, generator))
    runner, hooks = runner_of(model, wrapper, data), hooks_of(config, settings)
    other, features = examiner(model, settings), bare_vit(model)
    recorder.forget()
    for hook in hooks:
        hook.before_train(runner)
    fill_pools(other, features, data, recorder, both=True)
    losses, renewals = [], 0
    for step in range(STEPS):
        images = blocky(BATCH, generator)
        labels = torch.randint(0, CLASSES + 1, (BATCH, HEIGHT, WIDTH), generator=generator)
        recorder.forget()
        runner.iter = step
        for hook in hooks:
            hook.before_train_iter(runner, step)
        assert other.renews() == bool(recorder.items), f'step {step}'
        if other.renews():
            fill_pools(other, features, data, recorder, both=False)
            renewals += 1
        samples = [SegDataSample(gt_sem_seg=PixelData(data=label[None])) for label in labels]
        logged = model.train_step(dict(inputs=list(images), data_samples=samples), wrapper)
        feat, attention = features(normalised(images))
        feat_aug = features(recorder.views[0])[0] if recorder.views else None
        expected = other.train_step(feat, feat_aug, attention, labels, recorder.draws(settings))
        computed = {name: logged[key].item() for name, key in LOSS_NAMES.items() if key in logged}
        for hook in hooks:
            hook.after_train_iter(runner, step, outputs=logged)
        computed['norm'] = logged['gradient_norm_decode_head'].item()
        losses.append((computed, expected))
    return model, other, losses, renewals


def assert_close(model: nn.Module, other: StraightLineHP, losses: list[tuple[dict, dict]], tolerance: float) -> None:
    for step, (computed, expected) in enumerate(losses):
        assert computed == pytest.approx(expected, rel=tolerance, abs=tolerance), f'step {step}'
    pairs = {'cluster probe': (model.cluster_probe.centres, other.cluster_probe['centres'])}
    pairs['agnostic pool'] = model.agnostic_pool, other.pool_ag
    pairs['specific pool'] = model.specific_pool, other.pool_sp
    for part in ('head', 'average', 'project', 'linear_probe'):
        for name, value in weights_of(model, part).items():
            pairs[f'{part}, {name}'] = value, getattr(other, part)[name]
    for name, (computed, expected) in pairs.items():
        torch.testing.assert_close(
            computed.detach().double(), expected.detach(), rtol=tolerance, atol=tolerance,
            msg=lambda text, name=name: f'{name}: {text}',
        )  # fmt: skip


@pytest.mark.parametrize(
    ('name', 'dtype'), [*((name, torch.float64) for name in CASES), ('config', torch.float32)], ids=str
)
def test_twenty_steps(name, dtype, recorder):
    model, other, losses, renewals = train_both(CASES[name], dtype, recorder)
    assert_close(model, other, losses, 1e-5 if dtype == torch.float64 else 1e-4)
    interval, epoch = CASES[name].renew_interval, CASES[name].epoch
    assert renewals == sum(1 for step in range(STEPS) if step % epoch and step % epoch % interval == 0) >= 5


def test_everything_moves_in_twenty_steps(recorder):
    """Else the agreement above would say little."""
    settings = CASES['clipped']
    model, other, losses, _ = train_both(settings, torch.float64, recorder)
    torch.manual_seed(0)
    fresh, _ = build(settings, torch.float64)
    for part in ('head', 'average', 'project', 'linear_probe'):
        before = weights_of(fresh, part)
        for name, value in weights_of(model, part).items():
            assert (value - before[name]).abs().max() > 1e-3, f'{part}, {name}'
    for name in losses[0][0]:
        values = torch.tensor([computed[name] for computed, _ in losses])
        assert values.std() > 1e-3 * values.abs().mean(), name
    assert all(computed['norm'] > settings.clip for computed, _ in losses)
    assert [computed['lambda'] for computed, _ in losses] == pytest.approx([0] * 5 + [i / 16 for i in range(1, 16)])
    positives = (other.pool_ag @ other.pool_ag.T).fill_diagonal_(0).amax()
    assert 0 < positives < 1
