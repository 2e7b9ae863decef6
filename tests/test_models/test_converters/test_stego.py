"""Lightning checkpoints with the structure of STEGO's, made here, as checkpoints of ours."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import OrderedDict
from functools import partial
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from torch import Tensor

from omh_mmseg.commands.model_converters import stego2omh
from omh_mmseg.models.converters.dino import convert_file
from omh_mmseg.models.converters.stego import config_text, convert_stego_checkpoint
from omh_mmseg.registry import MODELS

REPOSITORY = Path(__file__).resolve().parents[3]
convert = partial(convert_file, convert_stego_checkpoint)
PUBLISHED = dict(
    dataset_name='cityscapes', model_type='vit_base', dino_patch_size=8, dino_feat_type='feat', dim=10, arch='dino',
    projection_type='nonlinear', continuous=True, dropout=True, pointwise=False, zero_clamp=True, stabalize=False,
    neg_inter_weight=0.9058762625226623, pos_inter_weight=0.577453483136995, pos_intra_weight=1,
    neg_inter_shift=0.31361241889448443, pos_inter_shift=0.1754346515479633, pos_intra_shift=0.45828472207,
    feature_samples=11, neg_samples=5, batch_size=32, num_neighbors=7, max_steps=7000, lr=5e-4, res=224,
    crop_type='five', crop_ratio=0.5, extra_clusters=0, use_true_labels=False, use_salience=False,
    correspondence_weight=1.0, rec_weight=0.0, aug_alignment_weight=0.0, crf_weight=0.0, reset_probe_steps=None,
)  # fmt: skip
SIZES = {'model.decode_head.channels': 10, 'model.cluster_probe.extra_clusters': 0}


@pytest.fixture
def tiny_vit(tiny_vit) -> dict:
    """The tiny ViT with DINO's MLP ratio."""
    tiny_vit['arch']['feedforward_channels'] = 96
    return tiny_vit


@pytest.fixture
def state(dino_state) -> dict[str, Tensor]:
    """The reference's names: a tiny backbone, a code of 10 channels, 4 classes."""
    return lightning_state(dino_state(24, 2, 8, 4), channels=10, classes=4)


def lightning_state(backbone: dict[str, Tensor], channels: int, classes: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(2)
    width = backbone['norm.weight'].shape[0]

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) / (shape[1] ** 0.5 if len(shape) > 1 else 1)

    state = OrderedDict({f'net.model.{key}': value for key, value in backbone.items()})
    for name, rows, columns in [
        ('net.cluster1.0', channels, width), ('net.cluster2.0', width, width), ('net.cluster2.2', channels, width),
        ('linear_probe', classes, channels), ('decoder', width, channels),
    ]:  # fmt: skip
        state[f'{name}.weight'], state[f'{name}.bias'] = random(rows, columns, 1, 1), random(rows) * 0.1
    state['train_cluster_probe.clusters'] = random(classes, channels)
    state['cluster_probe.clusters'] = random(classes, channels)
    return state


def lightning(state: dict[str, Tensor], settings: dict, **entries) -> dict:
    """What Lightning stores around a state dict, with settings as its attribute dict."""
    classes = state['linear_probe.weight'].shape[0]
    return {
        'epoch': 2, 'global_step': 6399, 'pytorch-lightning_version': '1.4.5', 'state_dict': state,
        'callbacks': {}, 'optimizer_states': [dict(state={}, param_groups=[dict(lr=5e-4)])] * 3, 'lr_schedulers': [],
        'hparams_name': 'kwargs', 'hyper_parameters': dict(n_classes=classes, cfg=settings),
    } | entries  # fmt: skip


@pytest.fixture
def save(tmp_path, monkeypatch):
    """Save a checkpoint whose settings are an object of ``absentconf``, which is not there any more afterwards."""

    class Node:
        def __init__(self, value: object) -> None:
            self._val = value

    class DictConfig:
        def __init__(self, values: dict) -> None:
            self._content = {key: Node(value) for key, value in values.items()}

    def write(state: dict[str, Tensor], settings: dict | None = None, **entries) -> Path:
        module = ModuleType('absentconf')
        for made in (Node, DictConfig):
            made.__module__, made.__qualname__ = 'absentconf', made.__name__
            setattr(module, made.__name__, made)
        with monkeypatch.context() as context:
            context.setitem(sys.modules, 'absentconf', module)
            torch.save(lightning(state, DictConfig(PUBLISHED | (settings or {})), **entries), tmp_path / 'in.ckpt')
        return tmp_path / 'in.ckpt'

    return write


def reference_predictions(state: dict[str, Tensor], tokens: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Clusters and classes (B, H, W) by docs/methods/features.md 2.1 and docs/methods/evaluation.md 6.1, from tokens
    (B, C, h, w).
    """

    def conv(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, state[f'{name}.weight'], state[f'{name}.bias'])

    code = conv(tokens, 'net.cluster1.0')
    if 'net.cluster2.0.weight' in state:
        code = code + conv(conv(tokens, 'net.cluster2.0').relu(), 'net.cluster2.2')
    code = F.interpolate(code, size, mode='bilinear', align_corners=False)
    centres = F.normalize(state['cluster_probe.clusters'], dim=1)
    clusters = torch.einsum('bchw,nc->bnhw', F.normalize(code, dim=1), centres)
    return clusters.argmax(1), conv(code, 'linear_probe').argmax(1)


def ours(tiny_stego, tiny_vit, converted, **backbone):
    options = converted.model_options
    head = dict(type='ProjectionHead', channels=options['model.decode_head.channels'])
    head['nonlinear'] = options.get('model.decode_head.nonlinear', True)
    backbone = dict(type='FrozenBackbone', backbone=tiny_vit, position_interpolation='dino') | backbone
    probe = dict(type='ClusterProbe', extra_clusters=options['model.cluster_probe.extra_clusters'])
    return tiny_stego(decode_head=head, backbone=backbone, cluster_probe=probe, omh_head=None).eval()


@pytest.mark.parametrize('size', [(32, 32), (48, 48), (40, 64)])
def test_predictions_are_those_of_the_reference(tiny_stego, tiny_vit, dino_forward, state, save, tmp_path, size):
    converted = convert(save(state), tmp_path / 'out.pth', trust=True)
    model = ours(tiny_stego, tiny_vit, converted)
    before = model.state_dict()['iteration'].clone()
    load_checkpoint(model, str(tmp_path / 'out.pth'), strict=True)
    assert before == 0 and model.iteration == 6399
    images = torch.randn(2, 3, *size)
    backbone = {key.removeprefix('net.model.'): value for key, value in state.items() if key.startswith('net.model.')}
    tokens, _ = dino_forward(backbone, images, 3)
    clusters, classes = reference_predictions(state, tokens, size)
    with torch.no_grad():
        samples = model.predict(images)
    found = torch.cat([sample.pred_sem_seg.data for sample in samples])
    linear = torch.cat([sample.pred_linear.data for sample in samples])
    assert len(clusters.unique()) > 2 and len(classes.unique()) > 2
    assert (found == clusters).float().mean() > 0.999 and (linear == classes).float().mean() > 0.999


def test_features_of_keys(tiny_stego, tiny_vit, dino_forward, state, save, tmp_path):
    converted = convert(save(state, dict(dino_feat_type='KK')), tmp_path / 'out.pth', trust=True)
    assert converted.model_options == SIZES | {'model.backbone.feature': 'keys'}
    model = ours(tiny_stego, tiny_vit, converted, feature='keys')
    load_checkpoint(model, str(tmp_path / 'out.pth'), strict=True)
    images = torch.randn(1, 3, 32, 32)
    backbone = {key.removeprefix('net.model.'): value for key, value in state.items() if key.startswith('net.model.')}
    clusters, _ = reference_predictions(state, dino_forward(backbone, images, 3)[1], (32, 32))
    with torch.no_grad():
        assert (model.predict(images)[0].pred_sem_seg.data == clusters).float().mean() > 0.999


def test_linear_projection(tiny_stego, tiny_vit, state, save, tmp_path):
    linear = {key: value for key, value in state.items() if not key.startswith('net.cluster2.')}
    converted = convert(save(linear, dict(projection_type='linear')), tmp_path / 'out.pth', trust=True)
    assert converted.model_options == SIZES | {'model.decode_head.nonlinear': False}
    load_checkpoint(ours(tiny_stego, tiny_vit, converted), str(tmp_path / 'out.pth'), strict=True)


@pytest.mark.parametrize('stated', [3, None])
def test_extra_clusters(tiny_stego, tiny_vit, dino_forward, state, save, tmp_path, stated):
    state['cluster_probe.clusters'] = torch.randn(7, 10, generator=torch.Generator().manual_seed(3))
    settings = dict(extra_clusters=stated)
    if stated is None:  # a file whose settings say nothing
        torch.save(dict(state_dict=state), tmp_path / 'in.ckpt')
    source = tmp_path / 'in.ckpt' if stated is None else save(state, settings)
    converted = convert(source, tmp_path / 'out.pth', trust=True)
    assert (converted.num_classes, converted.extra_clusters) == (4, 3) and converted.deviations == {}
    assert converted.model_options == {'model.decode_head.channels': 10, 'model.cluster_probe.extra_clusters': 3}
    model = ours(tiny_stego, tiny_vit, converted)
    load_checkpoint(model, str(tmp_path / 'out.pth'), strict=True)
    assert torch.equal(model.cluster_probe.centres, state['cluster_probe.clusters'])
    assert model.assignment.sizes['pred_sem_seg'] == 7
    images = torch.randn(2, 3, 48, 48)
    backbone = {key.removeprefix('net.model.'): value for key, value in state.items() if key.startswith('net.model.')}
    clusters, classes = reference_predictions(state, dino_forward(backbone, images, 3)[0], (48, 48))
    with torch.no_grad():
        samples = model.predict(images)
    assert clusters.max() >= 4 and classes.max() < 4
    found = torch.cat([sample.pred_sem_seg.data for sample in samples])
    assert (found == clusters).float().mean() > 0.999


def test_written_file_is_plain(state, save, tmp_path):
    converted = convert(save(state), tmp_path / 'out.pth', trust=True)
    written = torch.load(tmp_path / 'out.pth', weights_only=True)
    assert written.keys() == {'state_dict', 'meta'}
    assert written['meta'].pop('trained_with').keys() == {'normalisation', 'weights', 'num_classes'}
    assert written['meta'] == dict(source='in.ckpt', iter=6399, settings=dict(n_classes=4) | PUBLISHED)
    assert torch.equal(written['state_dict']['cluster_probe.centres'], state['cluster_probe.clusters'])
    assert converted.left_out == ['decoder.weight', 'decoder.bias', 'train_cluster_probe.clusters']
    assert (converted.channels, converted.num_classes) == (10, 4)


def test_refused_without_trust(state, save, tmp_path):
    with pytest.raises(ValueError, match='objects of absentconf.DictConfig, absentconf.Node. Pickled .*--trust'):
        convert(save(state), tmp_path / 'out.pth')
    assert not (tmp_path / 'out.pth').exists()


# ---- what the file says of its run


def test_settings(state):
    converted = convert_stego_checkpoint(lightning(state, PUBLISHED | dict(rec_weight=0.1, dropout=False)), 'x')
    assert converted.training_options == {
        'train_dataloader.batch_size': 32,
        'train_dataloader.dataset.num_neighbours': 7,
        'train_cfg.max_iters': 7000,
        'optim_wrapper.optimizer.lr': 5e-4,
        'model.correlation_loss.self_weight': 1,
        'model.correlation_loss.self_shift': 0.45828472207,
        'model.correlation_loss.knn_weight': 0.577453483136995,
        'model.correlation_loss.knn_shift': 0.1754346515479633,
        'model.correlation_loss.rand_weight': 0.9058762625226623,
        'model.correlation_loss.rand_shift': 0.31361241889448443,
        'model.correlation_loss.feature_samples': 11,
        'model.correlation_loss.negative_samples': 5,
        'model.correlation_loss.pointwise': False,
        'model.correlation_loss.zero_clamp': True,
        'model.correlation_loss.stabilize': False,
    }
    assert converted.deviations == dict(dropout=False, rec_weight=0.1)
    assert converted.shown_settings['dataset_name'] == 'cityscapes'
    assert converted.config_name is None  # no config has this tiny backbone


def test_settings_in_groups_and_none_at_all(state):
    grouped = dict(train=PUBLISHED | dict(dim=99, n_classes=99), dim=10)
    assert convert_stego_checkpoint(lightning(state, grouped), 'x').settings == dict(n_classes=4) | PUBLISHED
    bare = convert_stego_checkpoint(dict(state_dict=state), 'x')
    assert bare.settings == {} and bare.training_options == {} and bare.state_dict['iteration'] == 0
    assert bare.model_options == SIZES


@pytest.mark.parametrize(
    ('version', 'batches'), [('1.4.5', 6399), ('1.5.10', 6399), ('1.6.0', 2133), ('2.0.1.post0', 2133), ('1.10', 2133)]
)
def test_steps_are_batches(state, version, batches):
    converted = convert_stego_checkpoint(lightning(state, PUBLISHED, **{'pytorch-lightning_version': version}), 'x')
    assert converted.state_dict['iteration'] == batches


def test_config(state, tmp_path):
    (tmp_path / 'base.py').write_text('model = dict(num_classes=4, decode_head=dict(channels=70, keep=1))\n')
    text = config_text(convert_stego_checkpoint(lightning(state, PUBLISHED), 'x'), 'base.py')
    (tmp_path / 'made.py').write_text(text)
    config = Config.fromfile(str(tmp_path / 'made.py'))
    assert config.model.decode_head == dict(channels=10, keep=1) and config.model.num_classes == 4
    assert config.model.correlation_loss.pointwise is False and config.train_cfg.max_iters == 7000
    assert config.model.correlation_loss.rand_shift == 0.31361241889448443
    assert '\n    decode_head=dict(\n        channels=10,\n    ),\n' in text


# ---- what is no checkpoint of STEGO


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(drop='net.model.blocks.1.norm1.bias'), 'x is not a vision transformer under .*missing layers.1.ln1.bias'),
        (dict(drop='net.cluster1.'), 'x lacks the entries of decode_head.linear.bias, decode_head.linear.weight'),
        (dict(drop='net.cluster2.2.'), r'x lacks the entries of decode_head.nonlinear.2.bias, .*nonlinear.2.weight'),
        (dict(drop='linear_probe.bias'), 'x lacks the entries of linear_probe.classifier.bias'),
        (dict(drop='cluster_probe.'), "not a checkpoint of STEGO .*'cluster_probe.clusters'.*holds .* decoder"),
        (dict(drop='net.model.'), r"not a checkpoint of STEGO with a DINO backbone, .*'net.model.\*'"),
        (dict(add=('net.cluster3.weight', torch.zeros(1))), 'x has entries without .*: net.cluster3.weight'),
        (dict(add=('cluster_probe.clusters', torch.zeros(3, 10))), 'fit each other: 3 clusters for 4 classes, .*=None'),
        (
            dict(add=('cluster_probe.clusters', torch.zeros(6, 10)), settings=dict(extra_clusters=3)),
            'fit each other: 6 clusters for 4 classes, though it states extra_clusters=3',
        ),
        (dict(add=('linear_probe.weight', torch.zeros(4, 9, 1, 1))), r'classifier.weight is \(4, 9, 1, 1\), not'),
        (dict(add=('linear_probe.bias', 'text')), 'x holds no tensors at linear_probe.bias'),
    ],
)  # fmt: skip
def test_missing_left_over_and_unfit_entries(state, change, message):
    changed = {key: value for key, value in state.items() if not key.startswith(change.get('drop', '?'))}
    if 'add' in change:
        key, value = change['add']
        changed[key] = value
    parameters = dict(n_classes=4, cfg=change.get('settings', {}))
    with pytest.raises(ValueError, match=message):
        convert_stego_checkpoint(dict(state_dict=changed, hyper_parameters=parameters), 'x')


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ([1, 2], "x is not a Lightning checkpoint with a 'state_dict': it holds a list"),
        (dict(model={}, epoch=1), 'x is not a Lightning checkpoint .* it holds the entries epoch, model'),
        (dict(state_dict={'backbone.a': torch.zeros(1)}), 'x is not a checkpoint of STEGO .* entries backbone.a'),
    ],
)
def test_other_content(content, message):
    with pytest.raises(ValueError, match=message):
        convert_stego_checkpoint(content, 'x')


def test_failing_conversion_writes_nothing(state, save, tmp_path):
    state.pop('net.cluster1.0.weight')
    with pytest.raises(ValueError, match='lacks the entries'):
        convert(save(state), tmp_path / 'out.pth', trust=True)
    assert [file.name for file in tmp_path.iterdir()] == ['in.ckpt']


# ---- the command


@pytest.fixture
def tool(monkeypatch):
    """Call the command with these words."""

    def run(*words: object) -> None:
        monkeypatch.setattr(sys, 'argv', ['stego2omh.py', *map(str, words)])
        stego2omh.main()

    return run


def test_command_prints_settings_and_options(tool, state, save, tmp_path, capsys):
    tool(save(state, dict(rec_weight=0.1)), tmp_path / 'out.pth', '--trust')
    printed = capsys.readouterr().out
    assert 'out.pth: 4 classes, code of 10 channels' in printed
    assert 'left out: decoder.weight' in printed
    assert 'pos_intra_shift        0.45828472207' in printed
    otherwise = printed.split('our STEGO trains otherwise:\n')[1].split('\n\n')[0]
    assert otherwise.split() == ['rec_weight', '0.1']
    assert 'python tools/test.py CONFIG' in printed and '--cfg-options model.decode_head.channels=10' in printed
    assert 'model.correlation_loss.pointwise=False' in printed


def test_command_writes_a_config(tool, state, save, tmp_path, capsys):
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'base.py').write_text('a = 1\n')
    made = tmp_path / 'made' / 'new.py'
    arguments = [save(state), tmp_path / 'out.pth', '--trust', '--config-out', made]
    with pytest.raises(SystemExit, match="'cityscapes' and the backbone None; name the one to extend with --config"):
        tool(*arguments)
    tool(*arguments, '--config', tmp_path / 'configs' / 'base.py')
    config = Config.fromfile(str(made))
    assert config.a == 1 and config.model.decode_head.channels == 10
    assert f'python tools/test.py {made} ' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['{absent}', '{out}'], 'stego2omh.py: There is no checkpoint'),
        (['{ckpt}', '{out}'], 'stego2omh.py: .* refused by default'),
        (['{ckpt}', '{out}', '--trust', '--config', '{absent}'], 'stego2omh.py: there is no config'),
    ],
)
def test_command_ends_with_one_line(tool, state, save, tmp_path, words, message):
    places = dict(absent=tmp_path / 'absent', out=tmp_path / 'out.pth', ckpt=save(state))
    with pytest.raises(SystemExit, match=message):
        tool(*(word.format(**places) for word in words))


# ---- at full size and through tools/test.py


@pytest.mark.slow
@pytest.mark.parametrize(
    ('width', 'settings', 'name', 'classes'),
    [
        (768, dict(dataset_name='cocostuff27', dim=90), 'stego_vit-b8_coco', 27),
        (768, dict(dim=100), 'stego_vit-b8_cityscapes', 27),
        (384, dict(dataset_name='potsdam', dim=70), 'stego_vit-s8_potsdam', 3),
    ],
)
def test_published_files_fit_our_configs(dino_state, width, settings, name, classes):
    state = lightning_state(dino_state(width, 12, 8, 28), settings['dim'], classes)
    converted = convert_stego_checkpoint(lightning(state, PUBLISHED | settings), 'x')
    assert converted.config_name == name
    assert len(converted.dataset_meta['classes']) == len(converted.dataset_meta['palette']) == classes
    config = Config.fromfile(str(REPOSITORY / 'configs' / f'{name}.py'))
    config.merge_from_dict(converted.model_options | converted.training_options)
    config.model.backbone.out_channels, config.model.backbone.stride = width, 8
    model = MODELS.build(config.model)
    model.load_state_dict(converted.state_dict, strict=True)
    assert torch.equal(model.cluster_probe.centres, state['cluster_probe.clusters'])


@pytest.mark.slow
def test_tools_test_evaluates_the_written_file(dino_state, save, tmp_path):
    state = lightning_state(dino_state(192, 4, 8, 16), 10, 6)
    demo = REPOSITORY / 'configs' / 'stego_vit-t8_demo.py'
    tool = REPOSITORY / 'tools' / 'model_converters' / 'stego2omh.py'
    words = [sys.executable, tool, save(state), 'out.pth', '--trust', '--config-out', 'made.py', '--config', demo]
    environment = os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(REPOSITORY))
    subprocess.run(words, cwd=tmp_path, env=environment, check=True)
    options = ['test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False',
               'test_dataloader.dataset.counts.train=2', 'test_dataloader.dataset.counts.val=4',
               f'test_dataloader.dataset.data_root={tmp_path}/scenes']
    words = [sys.executable, REPOSITORY / 'tools' / 'test.py', 'made.py', 'out.pth', '--cfg-options', *options]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'probe/mIoU' in done.stdout + done.stderr
    assert 'unexpected key' not in done.stdout + done.stderr
