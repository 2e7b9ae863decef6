"""The package's STEGO against the straight-line derivation: same data, weights and random draws, 20 steps."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from straight_line_stego import Draws, Settings, StraightLineStego, normalised
from torch import Tensor, nn

from omh_mmseg.registry import MODELS

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'stego_vit-s8_coco.py'
STEPS, BATCH, CLASSES, CODE, SAMPLES, NEGATIVES = 20, 4, 5, 6, 4, 5
HEIGHT, WIDTH, PATCH = 48, 64, 8
VIT = dict(
    type='mmpretrain.VisionTransformer',
    arch=dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48),
    img_size=(HEIGHT, WIDTH),
    patch_size=PATCH,
    out_type='featmap',
)
# docs/methods/stego.md 4.2, rows "Cocostuff27 vit small 1/31/22" (that of the config), "Cityscapes 10/3" and
# "Cocostuff27 10/3 vit_base".
COCO_SMALL = Settings(CLASSES, 0.67, 0.25, 0.63, 0.08, 0.02, 0.66)
CITYSCAPES = Settings(CLASSES, 1, 0.577453483136995, 0.9058762625226623, 0.45828472207, 0.1754346515479633,
                      0.31361241889448443, pointwise=False)  # fmt: skip
COCO_BASE = Settings(CLASSES, 0.1, 1, 0.1538476246415498, 0.12, 0.2, 1)
LOSS_NAMES = dict(
    self='loss_self', knn='loss_knn', rand='loss_rand', linear='loss_linear_probe', cluster='loss_cluster_probe'
)
LossPair = tuple[dict[str, float], dict[str, float]]


@dataclass(frozen=True)
class Case:
    """One run: ``settings`` None leaves the losses as the config file has them."""

    expected: Settings
    settings: Settings | None = None
    dropout: float | None = None
    nonlinear: bool = True

    @property
    def dropout_ratio(self) -> float:
        return 0.1 if self.dropout is None else self.dropout


def case(settings: Settings, **options: object) -> Case:
    return Case(settings, settings, **options)


CASES = dict(
    config=Case(COCO_SMALL),
    cityscapes_without_dropout=case(CITYSCAPES, dropout=0.0),
    negative_and_capped_cosines=case(replace(COCO_SMALL, zero_clamp=False, stabilize=True), dropout=0.4),
    not_centred_and_capped=case(replace(CITYSCAPES, stabilize=True)),
    base_rows=case(replace(COCO_BASE, stabilize=True), dropout=0.3),
    linear_head_only=case(replace(COCO_BASE, pointwise=False, zero_clamp=False), nonlinear=False),
)


@dataclass
class Recorder:
    """What the package draws from torch's generators, in the order of its calls."""

    uniform: list[Tensor] = field(default_factory=list)
    permutations: list[Tensor] = field(default_factory=list)
    masks: list[Tensor] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def draws(self, dropout_ratio: float, nonlinear: bool) -> Draws:
        """The draws of one step under the names of docs/methods; forgets them.

        The package sends anchors and neighbours through the head together, anchors first, and draws the mask of the
        linear branch, of the non-linear branch where there is one, and of the features, in this order.
        """
        assert [tuple(drawn.shape) for drawn in self.uniform] == [(BATCH, SAMPLES, SAMPLES, 2)] * 2
        assert all(0 <= drawn.min() and drawn.max() < 1 for drawn in self.uniform)
        assert [sorted(drawn.tolist()) for drawn in self.permutations] == [list(range(BATCH))] * NEGATIVES
        assert [tuple(mask.shape) for mask in self.masks] == [(2 * BATCH, 24)] * (3 if nonlinear else 2)
        assert self.ratios == [dropout_ratio] * len(self.masks)
        masks = self.masks if nonlinear else [self.masks[0], torch.ones_like(self.masks[0]), self.masks[1]]
        first, second = (2 * drawn.double() - 1 for drawn in self.uniform)
        drawn = Draws(
            tuple(mask[:BATCH] for mask in masks), tuple(mask[BATCH:] for mask in masks), first, second,
            list(self.permutations),
        )  # fmt: skip
        self.uniform, self.permutations, self.masks, self.ratios = [], [], [], []
        return drawn


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Listens to ``torch.rand``, ``torch.randperm`` and channel dropout while the package trains."""
    heard = Recorder()
    rand, randperm, dropout = torch.rand, torch.randperm, F.dropout2d

    def listening_rand(*args: object, **kwargs: object) -> Tensor:
        heard.uniform.append(rand(*args, **kwargs))
        return heard.uniform[-1].clone()

    def listening_randperm(*args: object, **kwargs: object) -> Tensor:
        heard.permutations.append(randperm(*args, **kwargs))
        return heard.permutations[-1].clone()

    def listening_dropout(maps: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        mask = dropout(torch.ones_like(maps[:, :, :1, :1]), p, training)
        if training:
            heard.masks.append(mask[:, :, 0, 0].double())
            heard.ratios.append(p)
        return maps * mask

    monkeypatch.setattr(torch, 'rand', listening_rand)
    monkeypatch.setattr(torch, 'randperm', listening_randperm)
    monkeypatch.setattr(F, 'dropout2d', listening_dropout)
    return heard


def build(run: Case, dtype: torch.dtype) -> tuple[nn.Module, OptimWrapper]:
    """The model and optimiser of the config file, with small sizes and a small random ViT."""
    config = Config.fromfile(str(CONFIG))
    model = config.model
    model.num_classes = CLASSES
    model.backbone = dict(type='FrozenBackbone', backbone=copy.deepcopy(VIT))
    model.decode_head.update(channels=CODE, nonlinear=run.nonlinear)
    if run.dropout is not None:
        model.decode_head.dropout_ratio = run.dropout
    model.correlation_loss.feature_samples = SAMPLES
    if run.settings is not None:
        chosen = run.settings
        model.correlation_loss.update(
            self_weight=chosen.w_self, self_shift=chosen.b_self, knn_weight=chosen.w_knn, knn_shift=chosen.b_knn,
            rand_weight=chosen.w_rand, rand_shift=chosen.b_rand, pointwise=chosen.pointwise,
            zero_clamp=chosen.zero_clamp, stabilize=chosen.stabilize,
        )  # fmt: skip
    built = MODELS.build(model)
    built.init_weights()
    # Drawn in the test, not by the seed of the library's random backbones.
    drawn = MODELS.build(copy.deepcopy(VIT))
    drawn.init_weights()
    built.backbone.backbone.load_state_dict(drawn.state_dict())
    with torch.no_grad():
        # Features of a fresh ViT are almost equal everywhere; the terms need high and low cosines.
        for parameter in built.backbone.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    built.to(dtype)
    built.train()
    return built, build_optim_wrapper(built, config.optim_wrapper)


def examiner(model: nn.Module, settings: Settings) -> StraightLineStego:
    """The straight line with copies of the model's trainable weights, in float64."""

    def copies(**tensors: Tensor) -> dict[str, Tensor]:
        return {name.replace('_', '.'): tensor.detach().double().clone() for name, tensor in tensors.items()}

    return StraightLineStego(
        settings,
        copies(**{name.replace('.', '_'): tensor for name, tensor in head_weights(model).items()}),
        copies(weight=model.linear_probe.classifier.weight, bias=model.linear_probe.classifier.bias),
        copies(centres=model.cluster_probe.centres),
    )


def head_weights(model: nn.Module) -> dict[str, Tensor]:
    """The head's parameters under the examiner's names."""
    head = model.decode_head
    weights = {'linear.weight': head.linear.weight, 'linear.bias': head.linear.bias}
    if head.nonlinear is not None:
        hidden, out = head.nonlinear[0], head.nonlinear[2]
        weights |= {'hidden.weight': hidden.weight, 'hidden.bias': hidden.bias}
        weights |= {'out.weight': out.weight, 'out.bias': out.bias}
    return weights


def bare_vit(model: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Features of normalised images by mmpretrain's ViT alone."""
    vit = MODELS.build(copy.deepcopy(VIT))
    vit.load_state_dict(model.backbone.backbone.state_dict())
    vit.to(dtype)
    vit.eval()

    def features(images: Tensor) -> Tensor:
        with torch.no_grad():
            return vit(images.to(dtype))[-1].double()

    return features


def batch(generator: torch.Generator, count: int = BATCH) -> tuple[Tensor, Tensor, Tensor]:
    """Blocky 8-bit images, their neighbours, and labels with ignored pixels and values beyond the classes."""

    def images() -> Tensor:
        blocks = torch.randint(0, 256, (count, 3, 3, 4), generator=generator)
        noise = torch.randint(-30, 31, (count, 3, HEIGHT, WIDTH), generator=generator)
        large = blocks.repeat_interleave(HEIGHT // 3, 2).repeat_interleave(WIDTH // 4, 3)
        return (large + noise).clamp(0, 255).to(torch.uint8)

    labels = torch.randint(0, CLASSES + 1, (count, HEIGHT, WIDTH), generator=generator)
    labels[:, : HEIGHT // 4] = 255
    return images(), images(), labels


def packed(anchor: Tensor, neighbour: Tensor, labels: Tensor) -> dict:
    """The batch as mmengine's loader collates it."""
    samples = []
    for label in labels:
        sample = SegDataSample(metainfo=dict(img_shape=(HEIGHT, WIDTH), ori_shape=(HEIGHT, WIDTH)))
        sample.gt_sem_seg = PixelData(data=label[None])
        samples.append(sample)
    return dict(inputs=dict(anchor=list(anchor), neighbour=list(neighbour)), data_samples=samples)


def train_both(
    run: Case, dtype: torch.dtype, recorder: Recorder
) -> tuple[nn.Module, StraightLineStego, list[LossPair], OptimWrapper]:
    """Twenty steps of both sides; the models and the losses of every step."""
    model, optim_wrapper = build(run, dtype)
    other, features = examiner(model, run.expected), bare_vit(model, dtype)
    generator, losses = torch.Generator().manual_seed(1), []
    for _ in range(STEPS):
        anchor, neighbour, labels = batch(generator)
        logged = model.train_step(packed(anchor, neighbour, labels), optim_wrapper)
        drawn = recorder.draws(run.dropout_ratio, run.nonlinear)
        expected = other.train_step(features(normalised(anchor)), features(normalised(neighbour)), labels, drawn)
        losses.append(({name: logged[key].item() for name, key in LOSS_NAMES.items()}, expected))
    return model, other, losses, optim_wrapper


def assert_close(
    model: nn.Module, other: StraightLineStego, losses: list[LossPair], tolerance: float
) -> None:
    for step, (computed, expected) in enumerate(losses):
        assert computed == pytest.approx(expected, rel=tolerance, abs=tolerance), f'step {step}'
    pairs = {name: (tensor, other.head[name]) for name, tensor in head_weights(model).items()}
    pairs['linear probe, weight'] = model.linear_probe.classifier.weight, other.linear_probe['weight']
    pairs['linear probe, bias'] = model.linear_probe.classifier.bias, other.linear_probe['bias']
    pairs['cluster probe'] = model.cluster_probe.centres, other.cluster_probe['centres']
    for name, (computed, expected) in pairs.items():
        torch.testing.assert_close(
            computed.detach().double(), expected.detach(), rtol=tolerance, atol=tolerance,
            msg=lambda text, name=name: f'{name}: {text}',
        )  # fmt: skip


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize('name', CASES)
def test_twenty_steps(name, dtype, recorder):
    """To 1e-4 they must agree; they do to far more."""
    model, other, losses, _ = train_both(CASES[name], dtype, recorder)
    assert_close(model, other, losses, 1e-6 if dtype == torch.float64 else 1e-5)


def test_the_weights_and_every_loss_move_in_twenty_steps(recorder):
    """Else the agreement above would say little."""
    model, other, losses, _ = train_both(CASES['config'], torch.float64, recorder)
    torch.manual_seed(0)
    fresh, _ = build(CASES['config'], torch.float64)
    for part, rate in (('decode_head', 5e-4), ('linear_probe', 5e-3), ('cluster_probe', 5e-3)):
        before = dict(getattr(fresh, part).named_parameters())
        for name, parameter in getattr(model, part).named_parameters():
            assert 2 * rate < (parameter - before[name]).abs().max() < 30 * rate, name
    for name in LOSS_NAMES:
        values = torch.tensor([computed[name] for computed, _ in losses])
        assert values.std() > 1e-3 * values.abs().mean(), name


def test_one_optimiser_step_per_batch_and_a_frozen_backbone(recorder):
    """docs/methods/features.md 1.3, docs/methods/stego.md 3A.6 and 8.3."""
    torch.manual_seed(0)
    before = copy.deepcopy(build(CASES['config'], torch.float64)[0].backbone.state_dict())
    torch.manual_seed(0)
    model, _, _, optim_wrapper = train_both(CASES['config'], torch.float64, recorder)
    assert {int(state['step']) for state in optim_wrapper.optimizer.state.values()} == {STEPS}
    assert type(optim_wrapper.optimizer) is torch.optim.Adam and optim_wrapper.clip_grad_kwargs is None
    trained = {id(parameter) for group in optim_wrapper.optimizer.param_groups for parameter in group['params']}
    assert trained == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    for group in optim_wrapper.optimizer.param_groups:
        assert (group['betas'], group['eps'], group['weight_decay'], group['amsgrad']) == ((0.9, 0.999), 1e-8, 0, False)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.backbone.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())


@pytest.mark.parametrize('size', [(HEIGHT, WIDTH), (61, 83), (30, 100)], ids=str)
def test_predictions_of_the_trained_model(size, recorder):
    """docs/methods/evaluation.md 6.1: the code is upsampled to the size of the label and each pixel is probed."""
    model, _, _, _ = train_both(CASES['config'], torch.float32, recorder)
    other, features = examiner(model, COCO_SMALL), bare_vit(model, torch.float32)
    images, _, _ = batch(torch.Generator().manual_seed(2), 3)
    samples = []
    for _ in images:
        sample = SegDataSample(metainfo=dict(img_shape=(HEIGHT, WIDTH), ori_shape=(HEIGHT, WIDTH)))
        sample.gt_sem_seg = PixelData(data=torch.zeros(1, *size, dtype=torch.long))
        samples.append(sample)
    model.eval()
    with torch.no_grad():
        results = model.test_step(dict(inputs=list(images), data_samples=samples))
    linear, cluster = other.scores(features(normalised(images)), size)
    for field_name, scores in (('pred_linear', linear), ('pred_sem_seg', cluster)):
        computed = torch.cat([result.get(field_name).data for result in results])
        best = scores.topk(2, dim=1).values
        clear = best[:, 0] - best[:, 1] > 1e-4
        assert clear.float().mean() > 0.99
        assert torch.equal(computed[clear], scores.argmax(1)[clear]), field_name
        assert len(computed.unique()) > 1


def test_the_parts_of_the_head_are_dropped_alike_but_apart(recorder):
    """docs/methods/features.md 1.6 and 2.2: p is 0.1, and each of the six uses of a step has a mask of its own."""
    model, optim_wrapper = build(CASES['config'], torch.float32)
    generator, shares = torch.Generator().manual_seed(1), []
    for _ in range(STEPS):
        model.train_step(packed(*batch(generator)), optim_wrapper)
        drawn = recorder.draws(0.1, True)
        masks = torch.stack(drawn.anchor + drawn.neighbour)
        assert masks.unique().tolist() == pytest.approx([0, 1 / 0.9])
        shares.append((masks == 0).double().flatten(1))
    dropped = torch.cat(shares, 1)  # (6, uses)
    assert dropped.mean(1).tolist() == pytest.approx([0.1] * 6, abs=0.03)
    together = (dropped @ dropped.T / dropped.shape[1])[~torch.eye(6, dtype=torch.bool)]
    assert together.max() < 0.03
