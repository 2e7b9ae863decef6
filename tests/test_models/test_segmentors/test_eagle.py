"""EAGLE's step against the reference's arrays, and what surrounds it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from omh_mmseg.models.backbones.key_converters import dino_to_mmpretrain
from omh_mmseg.models.segmentors import EAGLE
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.frozen_inputs import FrozenInputs

CONFIGS = Path(__file__).resolve().parents[3] / 'configs'
STEPS = {'coco_200': 'eagle_vit-s8_coco', 'coco_201': 'eagle_vit-s8_coco', 'cityscapes_381': 'eagle_vit-b8_cityscapes'}
# Their names and ours.
HEADS = {
    'net.cluster1.0': 'decode_head.linear',
    'net.cluster2.0': 'decode_head.nonlinear.0',
    'net.cluster2.2': 'decode_head.nonlinear.2',
    'linear_probe': 'linear_probe.classifier',
    'project_head': 'project_head',
    'train_cluster_probe_eigen': 'eigen_lookups.0',
    'train_cluster_probe_eigen_aug': 'eigen_lookups.1',
    'cluster_probe': 'cluster_probe',
}
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def ours(theirs: str) -> str:
    module, _, kind = theirs.rpartition('.')
    return f'{HEADS[module]}.{"centres" if kind == "clusters" else kind}'


def part(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, Tensor]:
    """Arrays below a prefix, without it."""
    return {key.removeprefix(prefix): torch.tensor(value) for key, value in arrays.items() if key.startswith(prefix)}


def normalised(images: np.ndarray) -> Tensor:
    return (torch.tensor(images) / 255 - MEAN) / STD


def reference_model(arrays: Mapping[str, np.ndarray], name: str) -> tuple[EAGLE, Any]:
    """The model of a config with the sizes and weights of the arrays, and its optimiser."""
    config = Config.fromfile(CONFIGS / f'{STEPS[name]}.py')
    vit, heads = part(arrays, 'step/vit/'), part(arrays, f'step/{name.partition("_")[0]}_heads/')
    depth = 1 + max(int(key.split('.')[1]) for key in vit if key.startswith('blocks.'))
    model = config.model
    model.backbone.backbone.arch = dict(
        embed_dims=vit['cls_token'].shape[-1], num_layers=depth, num_heads=3,
        feedforward_channels=len(vit['blocks.0.mlp.fc1.bias']),
    )  # fmt: skip
    model.backbone.backbone.img_size = arrays['step/img_u8'].shape[-1]
    model.backbone.checkpoint = None
    model.decode_head.update(channels=len(heads['project_head.bias']), dropout_ratio=0.0)
    built = MODELS.build(model)
    state = {f'backbone.backbone.{key}': value for key, value in dino_to_mmpretrain(vit).items()}
    state |= {ours(key): value for key, value in heads.items() if not key.startswith('CELoss')}
    missing, unexpected = built.load_state_dict(state, strict=False)
    assert not unexpected and all(key == 'iteration' or key.startswith('assignment') for key in missing), missing
    return built.train(), build_optim_wrapper(built, config.optim_wrapper)


@pytest.mark.golden
@pytest.mark.parametrize('name', STEPS)
def test_a_whole_step(name, golden, monkeypatch):
    """Losses, cues, gradients and the optimiser's first step, with the reference's eigenvectors."""
    arrays = golden('eagle')
    step = part(arrays, f'step/{name}/')
    model, optim_wrapper = reference_model(arrays, name)
    model.iteration.fill_(int(name.rpartition('_')[2]))
    draws = {key: torch.tensor(arrays[f'step/{key}']) for key in ('coords1', 'coords2', 'coords3', 'perms')}
    coordinates = draws['coords1'], draws['coords2'], draws['coords3']
    loss = model.correspondence_loss
    monkeypatch.setattr(loss, 'forward', partial(loss.forward, coordinates=coordinates, permutations=draws['perms']))
    monkeypatch.setattr(model, 'jittered', lambda _: normalised(arrays['step/img_pos_aug_u8']))
    stored = part(arrays, 'step/coco_200/') if name == 'coco_201' else step
    vectors, solved, seen = [stored['eigenvectors'], stored['eigenvectors_aug']], model.eigen_cue.forward, []

    def cue(code: Tensor, colours: Tensor) -> Tensor:
        seen.append((solved(code, colours), code))
        return vectors[len(seen) - 1][..., 1:].transpose(1, 2).unflatten(2, code.shape[-2:])

    monkeypatch.setattr(model.eigen_cue, 'forward', cue)
    labels = [SegDataSample(gt_sem_seg=PixelData(data=torch.tensor(one).long()[None])) for one in arrays['step/label']]
    cues, lookup = [], model.cue
    monkeypatch.setattr(model, 'cue', lambda *args: cues.append(lookup(*args)) or cues[-1])
    images, share = normalised(arrays['step/img_u8']), model.share
    losses = model.loss(images, labels)

    close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-6)
    close(model.extract_feat(images[:1]), torch.tensor(arrays['step/feats_kk_img0']))
    close(seen[0][1][:1].detach(), torch.tensor(arrays['step/code_kk_img0']))
    for (_, labels_found), wanted in zip(cues, ('labels', 'labels_aug')):
        assert torch.equal(labels_found, step[wanted].flatten())
    for (found, _), one in zip(seen, vectors):
        dots = (found.flatten(2).transpose(1, 2) * one[..., 1:]).sum(1).abs()
        close(dots, torch.ones_like(dots), atol=1e-5)
    weights = (loss.positive_weight, loss.negative_weight)
    expected = dict(
        loss_positive=(1 - share) * weights[0] * step['log/loss/pos_inter'],
        loss_negative=(1 - share) * weights[1] * step['log/loss/neg_inter'],
        loss_object=share * 0.85 * (step['log/loss/local_pos_loss'] + step['log/loss/local_pos_aug_loss']),
        loss_linear_probe=step['log/loss/linear'],
        loss_cluster_probe=step['log/loss/cluster'],
    )
    # The reference logs the cue's loss of one of the views; the total has their mean.
    close(cues[0][0].detach(), step['log/loss/cluster_eigen_loss'])
    assert losses.keys() == expected.keys() | {'loss_eigen'}
    for key, value in expected.items():
        close(losses[key].detach(), value, msg=lambda text, key=key: f'{key}: {text}')
    objective = total(losses)
    close(objective.detach(), step['total'])

    before = {key: value.detach().clone() for key, value in model.named_parameters()}
    objective.backward()
    optim_wrapper.step()
    after = dict(model.named_parameters())
    gradients = part(arrays, f'step/{name}/grad/')
    assert len(gradients) >= 11
    for key, value in gradients.items():
        torch.testing.assert_close(
            after[ours(key)].grad, value, rtol=1e-4, atol=1e-7, msg=lambda text, key=key: f'{key}: {text}'
        )
    for key, value in part(arrays, f'step/{name}/after/').items():
        if not key.startswith('CELoss'):
            close((after[ours(key)] - before[ours(key)]).detach(), value)


@pytest.fixture
def tiny_eagle(tiny_vit, host_parts) -> Callable[..., nn.Module]:
    """``tiny_eagle(**parts)``: EAGLE with 4 classes on the keys of the tiny ViT."""

    def build(**parts: Any) -> nn.Module:
        config = dict(
            type='EAGLE', num_classes=4, linear_probe=dict(type='LinearProbe'),
            data_preprocessor=dict(type='ViewsDataPreprocessor', mean=[120.0] * 3, std=[60.0] * 3, bgr_to_rgb=True),
            backbone=dict(type='FrozenBackbone', backbone=tiny_vit, feature='keys', out_indices=(0, 1)),
            decode_head=dict(type='ProjectionHead', channels=10),
        )  # fmt: skip
        model = MODELS.build(config | host_parts('EAGLE') | copy.deepcopy(parts))
        model.init_weights()
        return model.train()

    return build


def samples(count: int = 2) -> list[SegDataSample]:
    return [SegDataSample() for _ in range(count)]


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


def test_the_switch(tiny_eagle):
    """Before it the project head has gradients of exactly zero, and after it others."""
    model, images = tiny_eagle(switch_step=1, object_share=0.75), torch.randn(2, 3, 32, 40)
    for step, moves in enumerate((False, False, True)):
        assert model.share == 0.75 * moves and model.step == step
        model.zero_grad()
        total(model.loss(images, samples())).backward()
        assert bool(model.project_head.weight.grad.any()) == moves
        assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


def test_what_is_cached_stands_for_the_images(tiny_eagle, monkeypatch):
    """Features, those of a view, and colours, in place of the pixels."""
    model = tiny_eagle(decode_head=dict(type='ProjectionHead', channels=10, dropout_ratio=0.0), switch_step=0)
    model.iteration.fill_(1)
    images = torch.randn(2, 3, 32, 40)
    view = model.jittered(images)
    monkeypatch.setattr(model, 'jittered', lambda _: view)
    with torch.no_grad():
        frozen = model.freeze(images)
        frozen.view = model.backbone(view)
    assert set(model.frozen_fields) - {'features'} == set(frozen.extras) == {'colours'}
    assert frozen.images is None and frozen.extras['colours'].shape == (2, 3, 4, 5)
    losses = []
    for inputs in (images, frozen):
        torch.manual_seed(3)
        model.iteration.fill_(1)
        losses.append(model.loss(inputs, samples()))
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value)
    # Where the images are there as well, the cached colours are what is read.
    frozen.images, frozen.extras['colours'] = images, torch.full((2, 3, 4, 5), torch.nan)
    assert model.colours(frozen, frozen.features).isnan().all()
    with pytest.raises(ValueError, match='EAGLE trains on cached features with colours, which is not there'):
        model.loss(FrozenInputs(frozen.features, frozen.size, view=frozen.view), samples())


@pytest.mark.parametrize('where', ['autocast', 'backbone'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision(tiny_eagle, tiny_vit, where, dtype):
    """Cues and contrast are computed in float32 whatever the features come in."""
    frozen = dict(type='FrozenBackbone', backbone=tiny_vit, feature='keys', out_indices=(0, 1))
    if where == 'backbone':
        frozen['precision'] = str(dtype).removeprefix('torch.')
    model, images = tiny_eagle(switch_step=0, backbone=frozen), torch.randn(2, 3, 32, 40)
    for step in range(2):
        with torch.autocast('cpu', dtype, enabled=where == 'autocast'):
            losses = model.loss(images, samples())
        assert losses['loss_object'].dtype == losses['loss_eigen'].dtype == torch.float32
        model.zero_grad()
        total(losses).backward()
        assert all(value.isfinite() for value in losses.values()), step
        assert all(one.grad.isfinite().all() for one in model.parameters() if one.requires_grad)


def test_float64_stays(tiny_eagle):
    losses = tiny_eagle().double().loss(torch.randn(2, 3, 32, 32).double(), samples())
    assert all(value.dtype == torch.float64 for value in losses.values())
