"""The package's SmooSeg against the straight-line derivation: same data, weights and random draws, 20 steps."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmseg.structures import SegDataSample
from straight_line_smooseg import Settings, StraightLineSmooSeg
from straight_line_stego import normalised
from torch import Tensor, nn

from omh_mmseg.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
STEPS, BATCH, CLASSES, CODE, CHANNELS = 20, 4, 5, 6, 24
HEIGHT, WIDTH, PATCH = 48, 64, 8
VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=CHANNELS, num_layers=2, num_heads=3, feedforward_channels=48),
    img_size=(HEIGHT, WIDTH),
    patch_size=PATCH,
    out_type='featmap',
)


@dataclass(frozen=True)
class Case:
    """One run: a config file, what the derivation expects it to say, and changes to its model."""

    config: str
    expected: Settings
    dropout: float = 0.2
    changes: dict[str, object] = field(default_factory=dict)


# docs/methods/smooseg.md 4.5. The last case departs from the published numbers in everything that the config sets.
CASES = dict(
    coco=Case('smooseg_vit-s8_coco', Settings(-0.02, 0.48)),
    potsdam=Case('smooseg_vit-b8_potsdam', Settings(0.1, 0.5)),
    other_numbers=Case(
        'smooseg_vit-s8_cityscapes',
        Settings(0.3, 0.1, pointwise=False, temperature=0.5, momentum=0.5),
        0.4,
        {
            'smoothness_loss.within_shift': 0.3, 'smoothness_loss.across_shift': 0.1,
            'smoothness_loss.pointwise': False, 'cluster_probe.temperature': 0.5, 'cluster_probe.momentum': 0.5,
            'decode_head.dropout_ratio': 0.4,
        },
    ),
)  # fmt: skip


@dataclass
class Draws:
    """What the package draws in one step: masks of linear branch, non-linear branch and features, a permutation."""

    masks: list[Tensor] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    permutations: list[Tensor] = field(default_factory=list)

    def take(self, ratio: float) -> tuple[list[Tensor], Tensor]:
        """The draws since the last call."""
        assert [tuple(mask.shape) for mask in self.masks] == [(BATCH, CHANNELS)] * 3 and self.ratios == [ratio] * 3
        (permutation,), masks = self.permutations, self.masks
        assert sorted(permutation.tolist()) == list(range(BATCH))
        self.masks, self.ratios, self.permutations = [], [], []
        return masks, permutation


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> Draws:
    """Listens to ``torch.randperm`` and channel dropout while the package trains."""
    heard, randperm, dropout = Draws(), torch.randperm, F.dropout2d

    def listening_randperm(*args: object, **kwargs: object) -> Tensor:
        heard.permutations.append(randperm(*args, **kwargs))
        return heard.permutations[-1].clone()

    def listening_dropout(maps: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        mask = dropout(torch.ones_like(maps[:, :, :1, :1]), p, training)
        if training:
            heard.masks.append(mask[:, :, 0, 0].double())
            heard.ratios.append(p)
        return maps * mask

    monkeypatch.setattr(torch, 'randperm', listening_randperm)
    monkeypatch.setattr(F, 'dropout2d', listening_dropout)
    return heard


def build(case: Case, dtype: torch.dtype) -> tuple[nn.Module, OptimWrapper]:
    """The model and optimiser of the config file, with small sizes and a small random ViT."""
    config = Config.fromfile(str(CONFIGS / f'{case.config}.py'))
    config.merge_from_dict({f'model.{key}': value for key, value in case.changes.items()})
    config.model.num_classes = CLASSES
    config.model.backbone = dict(type='FrozenBackbone', backbone=copy.deepcopy(VIT))
    config.model.decode_head.channels = CODE
    model = MODELS.build(config.model)
    model.init_weights()
    with torch.no_grad():
        # Features of a fresh ViT are almost equal everywhere; the energy needs high and low cosines.
        for parameter in model.backbone.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model.to(dtype).train()
    return model, build_optim_wrapper(model, config.optim_wrapper)


def head_weights(model: nn.Module) -> dict[str, Tensor]:
    """The head's parameters under the examiner's names."""
    layers = dict(linear=model.decode_head.linear, hidden=model.decode_head.nonlinear[0])
    layers['out'] = model.decode_head.nonlinear[2]
    return {f'{name}.{kind}': getattr(layer, kind) for name, layer in layers.items() for kind in ('weight', 'bias')}


def bare_features(model: nn.Module, images: Tensor, dtype: torch.dtype) -> Tensor:
    """Features of 8-bit images by mmpretrain's ViT alone."""
    vit = MODELS.build(copy.deepcopy(VIT))
    vit.load_state_dict(model.backbone.backbone.state_dict())
    vit.to(dtype)
    vit.eval()
    with torch.no_grad():
        return vit(normalised(images).to(dtype))[-1].double()


def blocky_images(generator: torch.Generator) -> Tensor:
    blocks = torch.randint(0, 256, (BATCH, 3, 3, 4), generator=generator)
    noise = torch.randint(-30, 31, (BATCH, 3, HEIGHT, WIDTH), generator=generator)
    large = blocks.repeat_interleave(HEIGHT // 3, 2).repeat_interleave(WIDTH // 4, 3)
    return (large + noise).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize(('dtype', 'tolerance'), [(torch.float64, 1e-6), (torch.float32, 1e-4)], ids=str)
@pytest.mark.parametrize('name', CASES)
def test_twenty_steps(name, dtype, tolerance, draws):
    """Losses of every step, head, student, teacher and the prediction at the end."""
    case = CASES[name]
    model, optim_wrapper = build(case, dtype)
    other = StraightLineSmooSeg(
        case.expected,
        {key: value.detach().double().clone() for key, value in head_weights(model).items()},
        model.cluster_probe.student.detach().double().clone(),
        model.cluster_probe.centres.double().clone(),
    )
    torch.testing.assert_close(other.student.norm(dim=1), torch.ones(CLASSES).double())
    assert torch.equal(other.student, other.teacher)
    start = other.student.clone()
    generator = torch.Generator().manual_seed(1)
    for step in range(STEPS):
        images = blocky_images(generator)
        data = dict(inputs=list(images), data_samples=[SegDataSample() for _ in images])
        logged = model.train_step(data, optim_wrapper)
        expected = other.train_step(bare_features(model, images, dtype), *draws.take(case.dropout))
        computed = {term: logged[f'loss_{term}'].item() for term in expected}
        assert computed == pytest.approx(expected, rel=tolerance, abs=tolerance), f'step {step}'
    pairs = {key: (value, other.head[key]) for key, value in head_weights(model).items()}
    pairs['student'] = model.cluster_probe.student, other.student
    pairs['teacher'] = model.cluster_probe.centres, other.teacher
    for key, (value, expected) in pairs.items():
        torch.testing.assert_close(
            value.detach().double(), expected.detach(), rtol=tolerance, atol=tolerance,
            msg=lambda text, key=key: f'{key}: {text}',
        )  # fmt: skip
    # Twenty steps must have moved the prototypes visibly, or their agreement would show nothing.
    assert (other.student.detach() - start).abs().max() > 20 * tolerance
    model.eval()
    images = blocky_images(generator)
    predicted = model.test_step(dict(inputs=list(images), data_samples=[SegDataSample() for _ in images]))
    expected = other.predict(bare_features(model, images, dtype), (HEIGHT, WIDTH))
    same = torch.stack([item.pred_sem_seg.data[0] for item in predicted]) == expected
    assert same.double().mean() > 0.999
