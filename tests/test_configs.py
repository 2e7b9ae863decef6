"""Every config file: parses, builds, trains a step without touching the backbone, predicts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope, init_default_scope
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

import omh_mmseg  # noqa: F401
from omh_mmseg.engine import launch
from omh_mmseg.registry import MODELS
from omh_mmseg.utils.config import known_keys
from omh_mmseg.utils.dataset_configs import innermost_datasets
from omh_mmseg.utils.shared_options import LOADERS, NOTE, PIPELINE, SHARED_OPTIONS, outdated_parts, shared_parts

FOLDER = Path(__file__).resolve().parents[1] / 'configs'
FILES = sorted(path.name for path in FOLDER.glob('*.py'))
EXPERIMENTS = [name for name in FILES if not name.startswith('pretrain_')]
# A config for one's own images: where it is shown, and how it begins there.
OWN_ON = ('docs/data.md',)
OWN = re.compile(r"```python\n(_base_ = './configs/\w[^`]*)```")
NAME = re.compile(r'(omh_)?(stego|hp|smooseg|eagle|primaps)_[a-z0-9-]+_[a-z0-9-]+\.py')
# By the type of the host: whether it trains on pairs of images, its losses, its learning rates (of the head, then of
# other modules by the start of their names), and what it predicts beside the levels of OMH.
PAIRED = {'STEGO': True, 'SmooSeg': False, 'HiddenPositives': False, 'EAGLE': False, 'PriMaPs': False}
HOST_LOSSES = {
    'STEGO': {'loss_self', 'loss_knn', 'loss_rand', 'loss_cluster_probe', 'loss_linear_probe'},
    'SmooSeg': {'loss_within', 'loss_across', 'loss_data'},
    'HiddenPositives': {'loss_contrast', 'loss_consistency', 'loss_cluster_probe', 'loss_linear_probe'},
    'PriMaPs': {'loss_prototypes', 'loss_linear_probe'},
    'EAGLE': {
        'loss_positive', 'loss_negative', 'loss_object', 'loss_eigen', 'loss_cluster_probe', 'loss_linear_probe'
    },
}
RATES = {
    'STEGO': (5e-4, {'cluster_probe.': 5e-3, 'linear_probe.': 5e-3, 'omh_head.': 5e-3}),
    'SmooSeg': (1e-4, {'cluster_probe.': 5e-4, 'omh_head.': 5e-3}),
    'HiddenPositives': (5e-4, {'cluster_probe.': 5e-3, 'linear_probe.': 1e-3, 'omh_head.': 5e-3}),
    'PriMaPs': (5e-3, {}),
    'EAGLE': (
        5e-4, {'cluster_probe.': 5e-3, 'linear_probe.': 1e-3, 'eigen_lookups.': 5e-5, 'omh_head.': 5e-3}
    ),
    ('EAGLE', 'Cityscapes27'): (
        5e-4, {'cluster_probe.': 3e-3, 'linear_probe.': 5e-3, 'eigen_lookups.': 5e-4, 'omh_head.': 5e-3}
    ),
}  # fmt: skip
PREDICTIONS = {
    'STEGO': {'pred_sem_seg', 'pred_linear'},
    'SmooSeg': {'pred_sem_seg'},
    'HiddenPositives': {'pred_sem_seg', 'pred_linear'},
    'PriMaPs': {'pred_sem_seg', 'pred_linear'},
    'EAGLE': {'pred_sem_seg', 'pred_linear'},
}


@pytest.fixture(autouse=True)
def scope(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    torch.manual_seed(0)
    init_default_scope('mmseg')
    for name in ('OMH_DATA_ROOT', 'OMH_NUM_CLASSES'):
        monkeypatch.delenv(name, raising=False)
    yield
    DefaultScope._instance_dict.clear()


def read(name: str) -> Config:
    return Config.fromfile(str(FOLDER / name))


def pipelines(config: Config) -> Iterator[list]:
    for loader in LOADERS:
        for dataset in innermost_datasets(config[loader].dataset).values():
            yield dataset.pipeline


def chain(path: Path) -> int:
    """How many files deep the bases of a config go."""
    bases = Config._get_base_files(str(path))
    return max((1 + chain((path.parent / base).resolve()) for base in bases), default=0)


@pytest.mark.parametrize('name', FILES)
def test_parses(name):
    config = read(name)
    assert 'omh_mmseg' in config.custom_imports['imports']
    assert config.model.type


@pytest.mark.parametrize('name', FILES)
def test_every_variable_reaches_something(name):
    """The top level holds what mmengine and mmseg read, and shared options, all of which the note lists."""
    config = read(name)
    theirs = known_keys()
    assert set(config.keys()) - theirs <= {*SHARED_OPTIONS, NOTE, 'work_dir', 'export_grid', 'scenes', 'omh_head'}
    shared = [option for option in SHARED_OPTIONS if option in config]
    assert shared and set(config[NOTE]) == {*shared, PIPELINE}
    assert config[NOTE][PIPELINE] == config[PIPELINE]
    for option in shared:
        values = [*shared_parts(config, option).values(), config[NOTE][option]]
        assert len(values) > 1 and all(value == config[option] for value in values)
    assert outdated_parts(config) == {}


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_an_experiment_states_its_numbers(name):
    path = FOLDER / name.removeprefix('omh_')
    text = path.read_text()
    assert '_base_.' not in text
    stated = Config.fromstring(text[text.index('model = dict') :], '.py')
    assert {'type', 'num_classes', 'decode_head', 'cluster_probe'} < set(stated.model)
    assert any(key.endswith('_loss') for key in stated.model)
    assert 'batch_size' in stated.train_dataloader and {'max_iters', 'val_interval'} == set(stated.train_cfg)
    if re.search('_vit-[sb]8_|_dinov2', name):
        cited = {'STEGO': 'stego.md 4.[23]', 'HiddenPositives': 'hp.md 4.4', 'SmooSeg': 'smooseg.md 4.5'}
        cited |= {'PriMaPs': 'primaps.md 5.3', 'EAGLE': 'eagle.md 4.5'}
        assert re.search(rf'# .*docs/methods/{cited[stated.model.type]}', text)


@pytest.mark.parametrize('name', FILES)
def test_bases_are_at_most_three_deep(name):
    assert chain(FOLDER / name) <= 3


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_name_follows_the_scheme(name):
    assert NAME.fullmatch(name)


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_host_and_twin_differ_by_the_omh_head_alone(name):
    host = name.removeprefix('omh_')
    assert host in FILES and f'omh_{host}' in FILES
    plain, twin = read(host).to_dict(), read(f'omh_{host}').to_dict()
    assert plain['model'].get('omh_head') is None
    assert twin['model'].pop('omh_head')['type'] == 'OMHHead'
    twin.pop('omh_head', None)
    plain['model'].pop('omh_head', None)
    assert twin == plain


@pytest.mark.parametrize('name', EXPERIMENTS)
def test_what_the_tools_of_mmseg_need(name):
    config = read(name)
    assert config.default_scope == 'mmseg'
    assert config.optim_wrapper.type == 'OptimWrapper'  # --amp replaces exactly this
    assert config.default_hooks.visualization.type == 'SegVisualizationHook'
    assert config.test_pipeline == config.test_dataloader.dataset.pipeline
    assert config.test_evaluator.type == config.val_evaluator.type == 'UnsupervisedIoUMetric'
    assert config.train_dataloader.sampler.type == 'SeededInfiniteSampler'
    assert config.default_hooks.random_state.type == 'RandomStateHook'
    assert (config.train_dataloader.dataset.type == 'NeighbourPairs') == PAIRED[config.model.type]
    for pipeline in pipelines(config):
        Compose(pipeline)


# docs/methods/stego.md 4.2 and 4.3: self, knn and rand weight, their shifts, pointwise, D, batch, steps.
SMALL_COCO = (0.67, 0.25, 0.63, 0.08, 0.02, 0.66, True, 70, 16, 5000)
BASE_COCO = (0.1, 1, 0.1538476246415498, 0.12, 0.2, 1, True, 90, 32, 7000)
CITYSCAPES = (1, 0.577453483136995, 0.9058762625226623, 0.45828472207, 0.1754346515479633, 0.31361241889448443)
POTSDAM = (0.67, 0.25, 0.63, 0.08, 0.02, 0.76, True, 70, 16, 5000)
STEGO_NUMBERS = {
    'stego_vit-s8_coco.py': SMALL_COCO,
    'stego_vit-b8_coco.py': BASE_COCO,
    'stego_vit-s8_cityscapes.py': (*CITYSCAPES, False, 100, 16, 5000),
    'stego_vit-b8_cityscapes.py': (*CITYSCAPES, False, 100, 32, 7000),
    'stego_vit-s8_potsdam.py': POTSDAM,
    'stego_vit-b8_potsdam.py': POTSDAM,
}
# docs/methods/smooseg.md 4.5: shifts within and across, steps. The numbers for a data set's other backbone are ours.
SMOOSEG_NUMBERS = {
    'smooseg_vit-s8_coco.py': (-0.02, 0.48, 8000),
    'smooseg_vit-b8_coco.py': (-0.02, 0.48, 8000),
    'smooseg_vit-s8_cityscapes.py': (-0.02, 0.5, 3000),
    'smooseg_vit-b8_cityscapes.py': (-0.02, 0.5, 3000),
    'smooseg_vit-s8_potsdam.py': (0.1, 0.5, 3000),
    'smooseg_vit-b8_potsdam.py': (0.1, 0.5, 3000),
    'smooseg_dinov2-vit-b14_potsdam.py': (0.32, 0.5, 3000),
}
# docs/methods/hp.md 4.4, for both backbones: tau, alpha, rho, m, warm-up, pool, D, steps, interval of renewals.
HP_NUMBERS = {
    'coco': (0.8, 0.05, 0.02, 0.99, 1000, 2048, 512, 22896, 100),
    'cityscapes': (0.6, 0.05, 0.02, 0.999, 50, 2048, 512, 6960, 20),
    'potsdam': (0.4, 0.0, 1.0, 0.999, 100, 1024, 256, 710, 20),
}
# docs/methods/eagle.md 4.5, for both backbones: weights of positives and negatives, bias, samples, smoothing, extra
# clusters, the switch, u, steps.
EAGLE_NUMBERS = {
    'coco': (0.25, 0.63, 0, 11, None, 5, 200, 0.9, 10000),
    'cityscapes': (0.18, 1.0, 0.11, 28, 0.1, 1, 380, 0.7, 6000),
}
# docs/methods/data.md 5.1, 5.5, 5.6 and docs/methods/evaluation.md 8.24: classes, and whether images are cut in five.
DATASETS_OF_THE_LITERATURE = {'coco': (27, True), 'cityscapes': (27, True), 'potsdam': (3, False)}
DINO = {
    's8': ('deit-small', 'dino_deitsmall8_300ep_pretrain/dino_deitsmall8_300ep_pretrain.pth'),
    'b8': ('deit-base', 'dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth'),
}


@pytest.mark.parametrize('name', sorted(STEGO_NUMBERS))
def test_numbers_of_stego(name):
    config = read(name)
    loss, keys = config.model.correlation_loss, ('self', 'knn', 'rand')
    assert (
        *(loss[f'{key}_weight'] for key in keys),
        *(loss[f'{key}_shift'] for key in keys),
        loss.get('pointwise', True),
        config.model.decode_head.channels,
        config.train_dataloader.batch_size,
        config.train_cfg.max_iters,
    ) == STEGO_NUMBERS[name]
    assert loss.get('zero_clamp', True) and not loss.get('stabilize', False)
    assert config.train_dataloader.dataset.num_neighbours == 7
    assert config.optim_wrapper.optimizer == dict(type='Adam', lr=5e-4)


@pytest.mark.parametrize('name', sorted(SMOOSEG_NUMBERS))
def test_numbers_of_smooseg(name):
    """docs/methods/features.md 1.6, 2.1, 2.3 and docs/methods/smooseg.md 3C.2 to 3C.6, 4.5."""
    config = read(name)
    loss, head, probe = config.model.smoothness_loss, config.model.decode_head, config.model.cluster_probe
    assert (loss.within_shift, loss.across_shift, config.train_cfg.max_iters) == SMOOSEG_NUMBERS[name]
    assert loss.get('pointwise', True)
    assert (head.channels, head.act_cfg.type, head.dropout_ratio) == (64, 'SiLU', 0.2) and head.get('nonlinear', True)
    assert (probe.type, probe.temperature, probe.momentum) == ('PrototypeHead', 0.1, 0.998)
    assert config.train_dataloader.batch_size == 32
    assert config.optim_wrapper.optimizer == dict(type='Adam', lr=1e-4)
    assert config.model.get('linear_probe') is None and not config.model.get('share_prototypes', False)


@pytest.mark.parametrize('backbone', ['s8', 'b8'])
@pytest.mark.parametrize('data', HP_NUMBERS)
def test_numbers_of_hp(data, backbone):
    config = read(f'hp_vit-{backbone}_{data}.py')
    model, hooks = config.model, {hook.type: hook for hook in config.custom_hooks}
    loss = model.hidden_positive_loss
    assert (
        loss.temperature,
        loss.consistency_weight,
        loss.random_negatives,
        model.ema_momentum,
        model.warmup,
        model.pool_size,
        model.decode_head.channels,
        config.train_cfg.max_iters,
        hooks['ReferencePoolHook'].renew_interval,
    ) == HP_NUMBERS[data]
    clip = hooks['SubmoduleGradientClipHook']
    assert (clip.module, clip.max_norm) == ('decode_head', 10.0) and 'clip_grad' not in config.optim_wrapper
    assert (config.train_dataloader.batch_size, config.train_dataloader.drop_last) == (64, True)
    # What the reference does without an option: see the defaults of the host and its loss.
    assert not {'local_affinity', 'local_scale', 'photometric_view', 'total_iterations'} & set(model)
    assert not {'reweighting', 'fp16_masks'} & set(loss)


@pytest.mark.parametrize('backbone', ['s8', 'b8'])
@pytest.mark.parametrize('data', EAGLE_NUMBERS)
def test_numbers_of_eagle(data, backbone):
    config = read(f'eagle_vit-{backbone}_{data}.py')
    model, loss = config.model, config.model.correspondence_loss
    assert (
        loss.positive_weight,
        loss.negative_weight,
        loss.get('shift_bias', 0),
        loss.get('feature_samples', 11),
        model.object_loss.get('smoothing'),
        model.cluster_probe.extra_clusters,
        model.switch_step,
        model.object_share,
        config.train_cfg.max_iters,
    ) == EAGLE_NUMBERS[data]
    assert (model.backbone.feature, list(model.backbone.out_indices)) == ('keys', [-3, -2, -1])
    assert (model.decode_head.channels, model.eigen_cue.num_vectors, config.train_dataloader.batch_size) == (512, 4, 32)


@pytest.mark.parametrize('name', [name for name in EXPERIMENTS if 'dinov2' in name])
def test_dinov2(name):
    """Images fit the patches without padding, in training and test."""
    config = read(name)
    frozen = config.model.backbone
    assert (frozen.key_converter, frozen.position_interpolation) == ('dinov2', 'dino')
    assert (frozen.backbone.img_size, frozen.backbone.patch_size) == (518, 14)
    for pipeline in pipelines(config):
        assert all(step.size == 224 for step in pipeline if step.type in ('ResizeShortSide', 'CentreCrop'))
        assert 'CentreCrop' in [step.type for step in pipeline]


@pytest.mark.parametrize('name', [name for name in EXPERIMENTS if re.search(r'_vit-[sb]8_', name)])
def test_backbones_and_data_of_the_literature(name):
    config = read(name)
    backbone, data = re.search(r'vit-([sb]8)_([a-z]+)', name).groups()
    arch, address = DINO[backbone]
    frozen = config.model.backbone
    assert frozen.checkpoint == f'https://dl.fbaipublicfiles.com/dino/{address}'
    assert (frozen.backbone.arch, frozen.backbone.patch_size, frozen.backbone.img_size) == (arch, 8, 224)
    assert (frozen.key_converter, frozen.position_interpolation) == ('dino', 'dino')
    preprocessor = config.model.data_preprocessor
    assert [value / 255 for value in preprocessor.mean] == pytest.approx([0.485, 0.456, 0.406])
    assert [value / 255 for value in preprocessor.std] == pytest.approx([0.229, 0.224, 0.225])
    assert preprocessor.bgr_to_rgb is True
    classes, five_crop = DATASETS_OF_THE_LITERATURE[data]
    assert config.model.num_classes == classes
    train = config.train_dataloader.dataset
    train = train.dataset if train.type == 'NeighbourPairs' else train
    # docs/methods/primaps.md 6: whole images, at one size in training and test.
    whole = config.model.type == 'PriMaPs'
    assert (train.type == 'FiveCrop') == (five_crop and not whole)
    interpolation = 'bilinear' if whole else 'nearest'
    for pipeline, size in zip(pipelines(config), (320 if whole else 224, 320, 320)):
        kinds = ('ResizeShortSide', 'CentreCrop')
        resize, crop = (next(step for step in pipeline if step.type == kind) for kind in kinds)
        assert (resize.size, resize.interpolation, crop.size) == (size, interpolation, size)
        labels = [step.type for step in pipeline].index('LoadOptionalAnnotations')
        assert labels < pipeline.index(resize)


class Halves(torch.nn.Module):
    """Two proposals in place of those of features that see noise, of which there may be none."""

    crf, settings = None, 'halves'

    def forward(self, features, size, images=()):
        maps = torch.ones((len(features), *size), dtype=torch.uint8)
        maps[..., size[1] // 2 :] = 2
        return maps


@pytest.fixture(scope='module', params=EXPERIMENTS)
def built(request) -> tuple[Config, torch.nn.Module]:
    """A config and its model with random backbone weights, OMH acting from the first step."""
    init_default_scope('mmseg')
    config = read(request.param)
    config.model.backbone.checkpoint = None
    # What hosts and heads see of a transformer does not depend on its depth.
    if isinstance(config.model.backbone.backbone.get('arch'), str):
        wide = 768 if 'vit-b' in request.param else 384
        config.model.backbone.backbone.arch = dict(
            embed_dims=wide, num_layers=3, num_heads=wide // 64, feedforward_channels=4 * wide
        )
    if config.model.get('omh_head'):
        config.model.omh_head.reach = dict(begin=0)
        # k-means of thousands of codes, at each config anew, would take most of the time of these tests.
        config.model.omh_head.centres = dict(config.model.omh_head.get('centres') or {}, start='random')
    model = MODELS.build(config.model)
    model.init_weights()
    for pool in (getattr(model, name) for name in ('agnostic_pool', 'specific_pool') if hasattr(model, name)):
        pool.copy_(torch.nn.functional.normalize(torch.randn(pool.shape), dim=1))
    if config.model.type == 'PriMaPs':
        model.proposals = Halves()
    if config.model.type == 'EAGLE':  # after the switch everything learns
        model.iteration.fill_(model.switch_step + 1)
    return config, model


def test_trains_a_step(built):
    config, model = built
    model.train()
    model.zero_grad()
    side = 4 * model.backbone.stride
    views = {
        name: [torch.randint(0, 256, (3, side, side), dtype=torch.uint8) for _ in range(2)]
        for name in ('anchor', 'neighbour')
    }
    if not PAIRED[config.model.type]:
        views = views['anchor']
    samples = []
    for _ in range(2):
        labels = PixelData(data=torch.randint(0, config.model.num_classes, (1, side, side)))
        samples.append(SegDataSample(gt_sem_seg=labels, metainfo=dict(img_shape=(side, side), ori_shape=(side, side))))
    backbone = {key: value.clone() for key, value in model.backbone.state_dict().items()}
    followed = {
        name: value.clone()
        for name, value in model.named_parameters()
        if name.startswith('omh_head.') and not value.requires_grad
    }
    data = model.data_preprocessor(dict(inputs=views, data_samples=samples), True)
    losses = model.loss(**data)
    expected = set(HOST_LOSSES[config.model.type])
    if config.model.get('hidden_positive_loss', {}).get('consistency_weight') == 0:
        expected.remove('loss_consistency')
    if config.model.get('omh_head'):
        follows = (config.model.omh_head.get('centres') or {}).get('type') == 'MomentumCentres'
        expected |= set() if model.omh_head.match is None else {'loss_omh_match'}
        expected |= set() if follows else {'loss_omh_centre'}
    assert {name for name in losses if name.startswith('loss_')} == expected
    sum(losses[name] for name in expected).backward()
    for name, parameter in model.named_parameters():
        if name.startswith(('backbone.', 'ema_head.')):
            assert parameter.grad is None, name
        elif name in followed:
            # A level 1 that is shared moves with the host's prototypes, which follow later.
            shared = torch.equal(parameter, model.cluster_probe.centres)
            assert parameter.grad is None and (shared or not torch.equal(parameter, followed[name])), name
        else:
            assert torch.isfinite(parameter.grad).all() and parameter.grad.norm() > 0, name
    assert all(torch.equal(backbone[key], value) for key, value in model.backbone.state_dict().items())


def test_learning_rates(built):
    from mmengine.optim import build_optim_wrapper

    config, model = built
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    groups = {id(parameter): group for group in wrapper.param_groups for parameter in group['params']}
    dataset = innermost_datasets(config.train_dataloader.dataset)
    kind = config.model.type, next(iter(dataset.values())).type
    head, others = RATES.get(kind) or RATES[kind[0]]
    decay = config.optim_wrapper.optimizer.get('weight_decay', 0)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rate = next((others[start] for start in others if name.startswith(start)), head)
            assert groups[id(parameter)]['lr'] == pytest.approx(rate), name
            decayed = decay if name.startswith('decode_head.') else 0
            assert groups[id(parameter)]['weight_decay'] == pytest.approx(decayed), name


def test_predicts(built):
    config, model = built
    model.eval()
    sample = SegDataSample(metainfo=dict(img_shape=(60, 72), ori_shape=(80, 96)))
    image = torch.randint(0, 256, (3, 60, 72), dtype=torch.uint8)
    with torch.no_grad():
        (result,) = model.test_step(dict(inputs=[image], data_samples=[sample]))
    levels = {'pred_level1', 'pred_level2', 'pred_level3'} if config.model.get('omh_head') else set()
    expected = PREDICTIONS[config.model.type] | levels
    assert {name for name in result.keys() if name.startswith('pred')} == expected
    for name in expected:
        assert result.get(name).data.shape == (1, 80, 96)
    assert int(result.pred_sem_seg.data.max()) < len(model.cluster_probe.centres)


def test_padding_fits_the_stride(built):
    config, model = built
    for divisor in (config.model.data_preprocessor.size_divisor, config.model.data_preprocessor.test_cfg.size_divisor):
        # Patches of 14 pixels are fitted by a resize instead.
        assert divisor % model.backbone.size_multiple == 0 or model.backbone.input_fit == 'resize'


@pytest.fixture
def own_config(tmp_path) -> Path:
    """The config for one's own images, as the pages show it."""
    (text,) = {OWN.search((FOLDER.parent / page).read_text())[1] for page in OWN_ON}
    assert len(text.splitlines()) == 3
    (tmp_path / 'configs').symlink_to(FOLDER)
    (tmp_path / 'my_photos.py').write_text(text)
    return tmp_path / 'my_photos.py'


def test_config_of_ones_own_images(own_config):
    config = launch.load_config(str(own_config), str(own_config.parent / 'work_dir'))
    runner = launch.build_runner(config)
    assert runner.model.num_classes == len(runner.model.cluster_probe.centres) == 20
    assert runner.model.omh_head.level_sizes[0] == 20
    for loader in (runner._train_dataloader.dataset, runner._val_dataloader, runner._test_dataloader):
        assert (loader['dataset'].data_root, loader['dataset'].num_classes) == ('/my/photos', 20)


def test_config_of_ones_own_images_elsewhere(own_config):
    """A runner or an inferencer that reads the file by itself."""
    config = Config.fromfile(str(own_config))
    config.work_dir = str(own_config.parent / 'work_dir')
    with pytest.raises(ValueError, match=r'cannot reach all parts here.* model\.num_classes=20$'):
        Runner.from_cfg(config)
    model = MODELS.build(config.model)
    with pytest.raises(ValueError, match=r'cannot reach all parts here.* model\.num_classes=20$'):
        model.cfg = config
    assert not hasattr(model, 'cfg')
    model.cfg = config = read('omh_stego_mobilenet-v2_folder.py')
    assert model.cfg is config


def test_folder_config_takes_its_settings_from_the_environment(monkeypatch):
    monkeypatch.setenv('OMH_DATA_ROOT', '/my/photos')
    monkeypatch.setenv('OMH_NUM_CLASSES', '20')
    config = read('omh_stego_mobilenet-v2_folder.py')
    assert config.model.num_classes == 20
    assert config.train_dataloader.dataset.dataset.data_root == config.val_dataloader.dataset.data_root == '/my/photos'
