"""Weights that a loader reads from a file fill the model, or the error says what does not fit and what to do."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmengine.runner.checkpoint import _load_checkpoint_to_model
from torch import Tensor, nn

from omh_mmseg.checkpoint_files import CheckpointError
from omh_mmseg.models.utils.loaded_weights import PREDICT, RESUME, TRAINING_PARTS, fill_model, start

OMH = dict(type='OMHHead')


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is warned of."""
    said: list[str] = []

    def log(self: logging.Logger, level: int, message: object, *_: object) -> None:
        if level >= logging.WARNING and 'has random weights' not in str(message):
            said.append(str(message))

    monkeypatch.setattr(logging.Logger, 'log', log)
    monkeypatch.setattr(logging.Logger, 'warning', lambda self, message, *_: log(self, logging.WARNING, message))
    return said


@pytest.fixture
def refused(tmp_path: Path) -> Callable[..., str]:
    """``refused(model, state)``: what mmengine's loader says of a file with these weights; always one line."""

    def say(model: nn.Module, state: Any, **content: Any) -> str:
        torch.save(dict(state_dict=state, meta=dict(iter=1), **content), tmp_path / 'iter_1.pth')
        with pytest.raises(CheckpointError) as error:
            load_checkpoint(model, str(tmp_path / 'iter_1.pth'))
        text = str(error.value)
        assert text.startswith(str(tmp_path / 'iter_1.pth')) and '\n' not in text
        return text

    return say


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def test_what_is_wrong_is_listed(tiny_stego, refused):
    model = tiny_stego(omh_head=OMH)
    state = state_of(model)
    state['cluster_probe.centres'] = torch.zeros(9, 10)
    state['decode_head.linear.bias'][2] = torch.nan
    state['decode_head.other'] = state.pop('decode_head.linear.weight')
    text = refused(model, state)
    assert 'of another model than the config: cluster_probe.centres is (9, 10) there and (4, 10) here (1 we' in text
    assert "lacks 1 weights of the config's model: decode_head.linear.weight" in text
    assert 'has 1 weights that the model lacks: decode_head.other' in text
    assert 'has 1 weights that are not finite: decode_head.linear.bias. Use the config of its run.' in text


@pytest.mark.parametrize('value', [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize('key', ['omh_head.centres.1', 'backbone.backbone.patch_embed.projection.bias'])
def test_weights_that_are_not_finite(tiny_stego, refused, key, value):
    model = tiny_stego(omh_head=OMH)
    state = state_of(model)
    state[key].view(-1)[1] = value
    assert f'has 1 weights that are not finite: {key}. Use an earlier checkpoint' in refused(model, state)


@pytest.mark.parametrize(
    ('state', 'message'),
    [
        ({}, 'has no weights: its state dict is empty. Use the checkpoint of a run'),
        ({'decode_head.linear.bias': 'text'}, 'no state dict of tensors: decode_head.linear.bias hold something else'),
        ({'layer1.0.conv1.weight': torch.zeros(3)}, r'is of another program: none of its 1 weights \(layer1.0.conv1'),
        ([1, 2], 'its state_dict is a list. Use the checkpoint of a run'),
        ({3: torch.zeros(3)}, 'its state_dict is a dict whose keys are no names'),
        (torch.zeros(2), 'its state_dict is a Tensor'),
    ],
    ids=['empty', 'text', 'foreign', 'list', 'numbers', 'tensor'],
)
def test_what_holds_no_weights_of_the_model(tiny_stego, refused, state, message):
    assert re.search(message, refused(tiny_stego(), state))


def keys(model: nn.Module) -> Iterator[str]:
    """Those that may lack are the classes of clusters and, in weights of version 0.2, the length of the run."""
    return (
        key for key in model.state_dict() if not (key.startswith('assignment.') or key.endswith('.run_length'))
    )


@pytest.mark.parametrize('purpose', [PREDICT, start(), RESUME], ids=['predict', 'start', 'resume'])
def test_every_weight_counts(tiny_stego, purpose):
    """Whichever is missing, renamed, cut or not finite."""
    model = tiny_stego(omh_head=OMH)
    state = state_of(model)
    for key in keys(model):
        others = {name: value for name, value in state.items() if name != key}
        changed = [others | {f'{key}_': state[key]}]
        if purpose is RESUME or key not in TRAINING_PARTS:
            changed += [others]
        if state[key].dim():
            changed += [others | {key: state[key][:-1]}, others | {key: state[key][None]}]
        if state[key].is_floating_point():
            changed += [others | {key: torch.full_like(state[key], torch.nan)}]
        for one in changed:
            with pytest.raises(CheckpointError) as error:
                fill_model(model, dict(one), purpose)
            assert key.removeprefix('backbone.backbone.') in str(error.value) and '\n' not in str(error.value)


def test_a_part_that_the_weights_alone_have_may_be_left(tiny_stego):
    state = state_of(tiny_stego()) | {'other.weight': torch.ones(2)}
    with pytest.raises(CheckpointError, match='model lacks: other.weight'):
        fill_model(tiny_stego(), dict(state), start())
    fill_model(tiny_stego(), dict(state), start(['other']))


def test_whole_weights_load(tiny_stego, tmp_path, warnings):
    """Also with the prefix of distributed training, and without the layer that holds the weights."""
    expected = state_of(tiny_stego(omh_head=OMH))
    wrapped = {f'module.{key}': value for key, value in expected.items()}
    for content in (dict(state_dict=expected), expected, dict(state_dict=wrapped)):
        torch.save(content, tmp_path / 'iter_1.pth')
        model = tiny_stego(omh_head=OMH)
        load_checkpoint(model, str(tmp_path / 'iter_1.pth'))
        assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())
    assert not warnings


def test_weights_of_a_host_do_not_predict_with_omh(tiny_stego, refused):
    text = refused(tiny_stego(), tiny_stego(omh_head=None).state_dict())
    assert "lacks 7 weights of the config's model: omh_head." in text
    assert 'levels of OMH would be random' in text and 'model.omh_head=None' in text


def test_a_training_with_omh_starts_from_a_host(tiny_stego, warnings):
    model, host = tiny_stego(omh_head=OMH), tiny_stego(omh_head=None, linear_probe=None)
    drawn = state_of(model)
    fill_model(model, state_of(host), start())
    assert warnings == ['the checkpoint: linear_probe, omh_head of the model begin anew']
    for key, value in model.state_dict().items():
        anew = key.startswith(('omh_head.', 'linear_probe.', 'assignment.pred_level'))
        assert torch.equal(value, drawn[key] if anew else host.state_dict()[key]), key
    with pytest.raises(CheckpointError, match='Resume with the config of its run; a new run starts .* load_from'):
        fill_model(model, state_of(host), RESUME)


def test_what_the_config_leaves_out_is_named(tiny_stego, warnings):
    trained = state_of(tiny_stego(omh_head=OMH))
    for purpose in (PREDICT, start()):
        warnings.clear()
        fill_model(tiny_stego(omh_head=None, linear_probe=None), dict(trained), purpose)
        said = "the checkpoint: linear_probe, omh_head of it are not used, as the config's model has none"
        assert warnings == [said]
    with pytest.raises(CheckpointError, match='weights that the model lacks: linear_probe.classifier.weight'):
        fill_model(tiny_stego(omh_head=None, linear_probe=None), dict(trained), RESUME)


def test_a_probe_without_weights_predicts_nothing(tiny_stego, warnings):
    model = tiny_stego(omh_head=None)
    fill_model(model, state_of(tiny_stego(omh_head=None, linear_probe=None)))
    assert warnings == ['the checkpoint: it has no linear probe, so that there are neither masks nor scores of one']
    (sample,) = model.eval().predict(torch.randn(1, 3, 32, 32))
    assert 'pred_linear' not in sample and 'pred_sem_seg' in sample


def test_parts_begin_anew_where_they_are_named(tiny_stego, warnings):
    other = state_of(tiny_stego(omh_head=dict(OMH, num_levels=2), num_classes=5))
    model = tiny_stego(omh_head=OMH)
    with pytest.raises(CheckpointError, match=r'is \(5, 10\) there .*\.fresh_parts="\[cluster_probe,linear_pro'):
        fill_model(model, dict(other), start())
    fill_model(model, dict(other), start(['omh_head', 'linear_probe', 'cluster_probe']))
    assert warnings == ['the checkpoint: cluster_probe, linear_probe, omh_head of the model begin anew']
    assert torch.equal(model.decode_head.linear.weight, other['decode_head.linear.weight'])
    with pytest.raises(CheckpointError, match=r"fresh_parts must be among \['assignment', .*; got \['probe'\]"):
        fill_model(model, dict(other), start(['probe']))


def test_a_backbone_that_is_left_out_is_read_from_its_own_file(tiny_stego, tiny_vit, tmp_path, refused):
    weights = state_of(tiny_stego().backbone.backbone)
    torch.save(weights, tmp_path / 'vit.pth')
    heads = {key: value for key, value in state_of(tiny_stego()).items() if not key.startswith('backbone.')}
    assert 'lacks' in refused(tiny_stego(), heads)
    backbone = dict(type='FrozenBackbone', backbone=tiny_vit, checkpoint=str(tmp_path / 'vit.pth'))
    model = tiny_stego(backbone=backbone)
    torch.nn.init.zeros_(model.backbone.backbone.patch_embed.projection.weight)
    model.backbone._is_init = False
    torch.save(dict(state_dict=heads), tmp_path / 'heads.pth')
    load_checkpoint(model, str(tmp_path / 'heads.pth'))
    assert all(torch.equal(value, weights[key]) for key, value in model.backbone.backbone.state_dict().items())


def test_position_embeddings_are_resized(tiny_stego, tiny_vit, tmp_path):
    """Those of images of another size; others are refused."""
    state = state_of(tiny_stego(backbone=dict(type='FrozenBackbone', backbone=dict(tiny_vit, img_size=64))))
    model = tiny_stego()
    fill_model(model, dict(state))
    key = 'backbone.backbone.pos_embed'
    assert state[key].shape[1] == 65 and model.backbone.backbone.pos_embed.shape[1] == 17
    for broken in (state[key][:, :-2], state[key][..., :-1]):
        with pytest.raises(CheckpointError, match='of another model than the config'):
            fill_model(model, state | {key: broken})


def test_weights_that_come_from_no_file_are_the_callers(tiny_stego):
    model = tiny_stego()
    missing, unexpected = model.load_state_dict(dict(other=torch.zeros(1)), strict=False)
    assert 'decode_head.linear.bias' in missing and unexpected == ['other']


def test_inferencers_are_refused_as_well(tiny_stego, tmp_path):
    """They read the file first, and the weights later."""
    torch.save(dict(state_dict=tiny_stego(omh_head=None).state_dict()), tmp_path / 'host.pth')
    content = CheckpointLoader.load_checkpoint(str(tmp_path / 'host.pth'), map_location='cpu')
    with pytest.raises(CheckpointError, match=r'host.pth lacks .* weights'):
        _load_checkpoint_to_model(tiny_stego(), content)
