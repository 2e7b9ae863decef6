from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DefaultScope, init_default_scope
from PIL import Image

import omh_mmseg  # noqa: F401
from omh_mmseg.engine import launch
from omh_mmseg.evaluation.protocols import apply_protocol, predict_scored_alone
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.protocols import PRESETS, resolve

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
EXPERIMENTS = ['stego_vit-s8_coco.py', 'stego_vit-s8_cityscapes.py', 'stego_vit-s8_potsdam.py',
               'omh_stego_mobilenet-v2_folder.py', 'omh_stego_vit-t8_demo.py']  # fmt: skip


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    init_default_scope('mmseg')
    yield
    DefaultScope._instance_dict.clear()


def read(name: str = 'stego_vit-s8_coco.py') -> Config:
    return Config.fromfile(str(CONFIGS / name))


def built(config: Config) -> torch.nn.Module:
    """The config's model on a small backbone."""
    arch = dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48)
    vit = dict(type='mmpretrain.VisionTransformer', arch=arch, img_size=32, patch_size=8, out_type='featmap')
    config.model.backbone = dict(type='FrozenBackbone', backbone=vit)
    return MODELS.build(config.model)


@pytest.fixture
def item(tmp_path: Path) -> dict:
    """An image of 120 x 300 pixels whose label tells left, middle and right apart."""
    pixels = np.random.default_rng(0).integers(0, 256, (120, 300, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    label = np.repeat([[0, 1, 2]], 120, axis=0).repeat(100, axis=1).astype(np.uint8)
    Image.fromarray(label).save(tmp_path / 'label.png')
    return dict(img_path=str(tmp_path / 'a.png'), seg_map_path=str(tmp_path / 'label.png'), reduce_zero_label=False)


# docs/methods/evaluation.md 6.2, 6.4, docs/methods/eagle.md 7: side, flip averaging, CRF, temperature;
# docs/methods/data.md 5.6: nearest resize, centre square.
TABLE = {'stego': (320, True, True), 'hp': (320, False, True), 'smooseg': (320, True, True)}
TABLE['eagle'] = TABLE['primaps'] = TABLE['stego']


@pytest.mark.parametrize('name', sorted(TABLE))
@pytest.mark.parametrize('experiment', EXPERIMENTS)
def test_presets_of_the_literature(name, experiment, item):
    side, flip, crf = TABLE[name]
    config = read(experiment)
    levels = config.model.test_cfg['levels'] = [1] if config.model.get('omh_head') else []
    protocol = apply_protocol(config, name)
    alpha = 4.0 if name == 'eagle' else 2.0
    assert protocol.interpolation == ('bilinear' if name == 'primaps' else 'nearest')
    assert (protocol.name, protocol.side, protocol.flip, protocol.crf, protocol.alpha) == (name, side, flip, crf, alpha)
    data = Compose(config.test_dataloader.dataset.pipeline)(dict(item))
    sample = data['data_samples']
    assert data['inputs'].shape == (3, side, side) and sample.gt_sem_seg.shape == (side, side)
    # 120 x 300 becomes 320 x 800, of which the middle 320 columns are left: the middle third and its neighbours.
    columns = np.minimum(((np.arange(240, 560) + 0.5) * 300 / 800).astype(int) // 100, 2)
    assert (sample.gt_sem_seg.data[0].numpy() == columns).all()
    assert 'crop_bbox' in sample.metainfo
    model = built(config)
    options = model.predictor.options
    assert (options.mode, options.flip, options.alpha) == ('whole', flip, alpha)
    assert (model.predictor.crf is not None) == crf and model.predictor.levels(model) == levels
    assert model.predictor.crf.settings['iterations'] == 10


@pytest.mark.parametrize('experiment', EXPERIMENTS)
def test_mmseg_scores_the_full_image_at_the_size_of_its_label(experiment, item):
    config = read(experiment)
    (before,) = (step for step in config.test_pipeline if step.type == 'ResizeShortSide')
    protocol = apply_protocol(config, 'mmseg')
    assert (protocol.flip, protocol.crf, protocol.crop) == (False, False, False)
    data = Compose(config.test_dataloader.dataset.pipeline)(dict(item))
    height, width = data['inputs'].shape[1:]
    assert height == before['size'] and abs(width / height - 2.5) < 0.05
    assert data['data_samples'].gt_sem_seg.shape == (120, 300)
    assert config.test_dataloader.batch_size == 1
    options = config.model.test_cfg
    assert (options.mode, options.flip, options.crf, options.output_size) == ('whole', False, None, 'original')


LEVELS = dict(pred_level2='two', pred_level1='one')


@pytest.mark.parametrize(
    ('evaluators', 'given', 'expected'),
    [
        (dict(type='UnsupervisedIoUMetric'), {}, dict(levels=[1], linear=True)),
        (dict(type='UnsupervisedIoUMetric', heads=dict(pred_sem_seg='probe')), {}, dict(levels=[], linear=False)),
        ([dict(type='UnsupervisedIoUMetric', heads=LEVELS)], {}, dict(levels=[1, 2], linear=False)),
        ([dict(type='IoUMetric'), dict(type='UnsupervisedIoUMetric')], {}, dict(levels=[1], linear=True)),
        (dict(type='mmseg.IoUMetric'), {}, dict(levels=[], linear=False)),
        (dict(type='IoUMetric'), dict(levels=[3], linear=True), dict(levels=[3], linear=True)),
        ([dict(type='IoUMetric'), dict(type='MyMetric')], {}, {}),
    ],
)
def test_a_crf_refines_what_is_scored(evaluators, given, expected):
    config = read('omh_stego_vit-t8_demo.py')
    config.test_evaluator = evaluators
    config.model.test_cfg = dict(mode='whole', **given)
    predict_scored_alone(config)
    assert config.model.test_cfg == dict(mode='whole', **given)
    config.model.test_cfg.crf = dict()
    predict_scored_alone(config)
    assert config.model.test_cfg == dict(mode='whole', crf=dict(), **expected)


def test_a_model_without_levels_is_asked_for_none():
    config = read('stego_vit-t8_demo.py')
    config.model.test_cfg = dict(crf=dict())
    predict_scored_alone(config)
    assert config.model.test_cfg == dict(crf=dict(), linear=True)


def test_slide_takes_the_image_as_it_is(item):
    config = read()
    protocol = apply_protocol(config, 'mmseg-slide')
    data = Compose(config.test_dataloader.dataset.pipeline)(dict(item))
    assert data['inputs'].shape == (3, 120, 300)
    assert (protocol.crop_size, protocol.stride) == (320, 160)
    options = built(config).predictor.options
    assert (options.mode, options.crop_size, options.stride) == ('slide', (320, 320), (160, 160))
    apply_protocol(config, 'mmseg')
    assert 'crop_size' not in config.model.test_cfg


def test_windows_fit_the_patches():
    config = read()
    config.model.data_preprocessor.test_cfg = dict(size_divisor=14)
    protocol = apply_protocol(config, 'mmseg-slide')
    assert (protocol.crop_size, protocol.stride) == (322, 168)
    assert config.model.test_cfg.crop_size == (322, 322)


@pytest.mark.parametrize(
    ('name', 'crf', 'flip', 'expected'),
    [
        ('stego-no-crf', True, True, ('stego-no-crf', 320, False, True)),
        ('stego', False, False, ('stego-no-crf-no-flip', 320, False, False)),
        ('stego-no-flip-no-crf', True, True, ('stego-no-crf-no-flip', 320, False, False)),
        ('stego', True, False, ('stego-no-flip', 320, True, False)),
        ('smooseg-224', True, False, ('smooseg-224-no-flip', 224, True, False)),
        ('hp-224-no-crf', True, False, ('hp-224-no-crf', 224, False, False)),
    ],
)
def test_names(name, crf, flip, expected):
    """docs/methods/evaluation.md 10.6: no CRF/no flip, CRF/no flip, CRF and flip are reported by name."""
    found = resolve(name, crf, flip)
    assert (found.name, found.side, found.crf, found.flip) == expected
    assert resolve(found.name) == found


@pytest.mark.parametrize('name', ['picie', '', 'stego_no_crf', 'stego-no-crf-', 'stego-fast', 'STEGO'])
def test_unknown_names_list_the_known(name):
    with pytest.raises(ValueError, match='there is no protocol .* known are stego, hp, .*, mmseg, video, each'):
        resolve(name)


@pytest.mark.parametrize(('name', 'message'), [('stego-slide', 'centre square'), ('hp-0', 'at least 1 pixel')])
def test_names_that_contradict_themselves(name, message):
    with pytest.raises(ValueError, match=message):
        resolve(name)


def test_settings_are_kept_with_the_config():
    config = read()
    protocol = apply_protocol(config, 'stego-no-crf')
    assert config.protocol == protocol.settings() == dict(
        name='stego-no-crf', side=320, crop=True, flip=True, crf=False, label_size='resized', interpolation='nearest',
        mode='whole', alpha=2.0, upsampling='code, bilinear', matching='hungarian',
    )  # fmt: skip
    assert protocol.describe().startswith('protocol stego-no-crf: side=320, crop=True, flip=True, crf=False')
    slide = resolve('mmseg-slide').describe()
    assert 'crop_size=320' in slide and 'side=of the image' in slide


def test_where_the_crf_is_computed_is_kept():
    config = read()
    config.model.test_cfg = dict(crf=dict(backend='pydensecrf', workers=3, iterations=1), assignment='a.json')
    apply_protocol(config, 'hp')
    assert config.model.test_cfg.crf == dict(backend='pydensecrf', workers=3)
    assert config.model.test_cfg.assignment == 'a.json'


def test_data_sets_inside_wrappers_are_found():
    config = read()
    config.test_dataloader.dataset = dict(type='Wrapper', dataset=config.test_dataloader.dataset)
    apply_protocol(config, 'stego-224')
    assert config.test_dataloader.dataset.dataset.pipeline[2]['size'] == 224


def test_options_of_the_command_line_win():
    config = read()
    options = {'model.test_cfg.alpha': 3.0}
    config.merge_from_dict(options)
    launch.use_protocol(config, 'stego', flip=False, options=options)
    assert config.model.test_cfg.alpha == 3.0 and config.model.test_cfg.flip is False


def test_pipelines_that_cannot_be_rewritten():
    config = read()
    pipeline = config.test_dataloader.dataset.pipeline
    pipeline.insert(2, dict(type='PhotoMetricDistortion'))
    with pytest.raises(ValueError, match=r'cannot rewrite the test pipeline .*PhotoMetricDistortion has no place'):
        apply_protocol(config, 'stego')


def test_labels_stay_where_there_are_none_to_load(item):
    config = read()
    pipeline = config.test_dataloader.dataset.pipeline
    config.test_dataloader.dataset.pipeline = [step for step in pipeline if step.type != 'LoadOptionalAnnotations']
    apply_protocol(config, 'stego')
    assert 'gt_sem_seg' not in Compose(config.test_dataloader.dataset.pipeline)(dict(item))['data_samples']


@pytest.mark.parametrize('name', [None, *PRESETS])
@pytest.mark.parametrize('experiment', EXPERIMENTS)
def test_augmented_pipelines_flip_what_the_plain_ones_give(experiment, name, item):
    config = read(experiment)
    if name is not None:
        apply_protocol(config, name)
    launch.use_test_time_augmentation(config)
    plain = Compose(config.test_pipeline)(dict(item))
    dataset = config.test_dataloader.dataset
    dataset = dataset.dataset if dataset.type == 'FramesWithFlow' else dataset
    both = Compose(dataset.pipeline)(dict(item))
    assert torch.equal(both['inputs'][0], plain['inputs']) and torch.equal(both['inputs'][1], plain['inputs'].flip(-1))
    assert [sample.metainfo['flip'] for sample in both['data_samples']] == [False, True]
    assert torch.equal(both['data_samples'][0].gt_sem_seg.data, plain['data_samples'].gt_sem_seg.data)
    assert config.model.type == 'CodeAveragingTTA' and config.model.module.type == read(experiment).model.type
