from __future__ import annotations

from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.logging import MMLogger

from omh_mmseg.registry import MODELS
from omh_mmseg.utils.config import building, check_settings, read_config, replace_settings
from omh_mmseg.utils.config_keys import value_at
from omh_mmseg.utils.settings import Text

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
FOLDER, COCO = (str(CONFIGS / f'stego_{name}.py') for name in ('mobilenet-v2_folder', 'vit-s8_coco'))


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    texts: list[str] = []
    monkeypatch.setattr(MMLogger, 'warning', lambda _, text: texts.append(text))
    return texts


@pytest.mark.parametrize('path', ['stego_vit-t8_dem', 'configs/stego_vit-t8_demo.py', 'elsewhere/stego_vit-t8_demo.py'])
def test_a_config_that_is_not_there_names_shipped_ones(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=f'no config file {path} .*without a folder: stego_vit-t8_demo or '):
        read_config(path)


@pytest.mark.parametrize(
    ('key', 'hint'),
    [
        ('num_class', 'num_classes'),
        ('data_rot', 'data_root'),
        ('batch_size', 'train_dataloader.batch_size or val_dataloader.batch_size or test_dataloader.batch_size'),
        ('num_neighbours', 'train_dataloader.dataset.num_neighbours'),
        ('classes_file', 'train_dataloader.dataset.dataset.classes_file or val_dataloader.dataset.classes_file or'),
        ('max_iters', 'train_cfg.max_iters'),
        ('train_size', 'train_'),
        ('test_short_side', ''),
        ('modle.num_clases', r'model.num_classes\?$'),
        ('omh_head.num_classes', 'model.num_classes'),
        ('optimwrapper.optimizer.lr', 'optim_wrapper.optimizer.lr'),
        ('layout', ''),
    ],
)
def test_a_key_that_would_reach_nothing_is_refused(key, hint):
    with pytest.raises(ValueError, match=f'--cfg-options {key}: the config has no {key.split(".")[0]}.*{hint}'):
        read_config(FOLDER, {key: 3})


@pytest.mark.parametrize(
    ('key', 'hint'),
    [
        ('model.num_clases', 'model.num_classes'),
        ('model.decode_head.chanels', 'model.decode_head.channels'),
        ('model.backbone.chekpoint', 'model.backbone.checkpoint'),
        ('model.backbone.backbone.widen_facter', 'model.backbone.backbone.widen_factor'),
        ('model.data_preprocessor.std_', 'model.data_preprocessor.std'),
        ('model.data_preprocessor.test_cfg.size_divisr', 'test_cfg.size_divisor'),
        ('model.test_cfg.flips', 'model.test_cfg.flip'),
        ('model.test_cfg.crf.iteration', 'model.test_cfg.crf.iterations'),
        ('model.omh_head.num_levls', 'model.omh_head.num_levels'),
        ('model.omh_head.entropy_weight', 'it is plan.entropy_weight now'),
        ('model.omh_head.plan.entropy_weigth', 'model.omh_head.plan.entropy_weight'),
        ('model.omh_head.reach.start', ''),
        ('env_cfg.cudnn_bench', 'env_cfg.cudnn_benchmark'),
        ('env_cfg.mp_cfg.start_method', 'env_cfg.mp_cfg.mp_start_method'),
        ('randomness.sed', 'randomness.seed'),
        ('default_hooks.logger.intervall', 'default_hooks.logger.interval'),
        ('default_hooks.chekpoint.interval', 'default_hooks.checkpoint'),
        ('default_hooks.extra.interval', 'default_hooks.extra has no type'),
        ('custom_hooks.0.patienc', 'custom_hooks.0.patience'),
        ('model.train_cfg.sampler', 'model.train_cfg has no sampler'),
        ('train_cfg.max_iter', 'train_cfg.max_iters'),
        ('optim_wrapper.optimizer.lrr', 'optim_wrapper.optimizer.lr'),
        ('optim_wrapper.accumulative_count', 'optim_wrapper.accumulative_counts'),
        ('optim_wrapper.paramwise_cfg.norm_decay', 'optim_wrapper.paramwise_cfg.norm_decay_mult'),
        ('optim_wrapper.paramwise_cfg.custom_keys.omh_hed.lr_mult', 'custom_keys.omh_head'),
        ('train_dataloader.batchsize', 'train_dataloader.batch_size'),
        ('train_dataloader.sampler.shufle', 'train_dataloader.sampler.shuffle'),
        ('train_dataloader.dataset.num_neighbors', 'train_dataloader.dataset.num_neighbours'),
        ('train_dataloader.dataset.dataset.splt', 'train_dataloader.dataset.dataset.split'),
        ('val_dataloader.dataset.metainfo.clases', 'val_dataloader.dataset.metainfo.classes'),
        ('val_dataloader.dataset.data_prefix.img_pth', 'data_prefix.img_path'),
        ('val_dataloader.dataset.pipeline.1.sze', 'val_dataloader.dataset.pipeline.1.size'),
        ('test_evaluator.bootstraps', 'test_evaluator.bootstrap'),
        ('log_processor.window', 'log_processor.window_size'),
        ('auto_scale_lr.enabled', 'auto_scale_lr.enable'),
    ],
)
def test_a_key_below_that_would_reach_nothing_is_refused(tmp_path, key, hint):
    (tmp_path / 'child.py').write_text(
        f"_base_ = {FOLDER!r}\nauto_scale_lr = dict(base_batch_size=8)\n"
        "model = dict(omh_head=dict(type='OMHHead'), test_cfg=dict(crf=dict(workers=1)))\n"
        "val_dataloader = dict(dataset=dict(metainfo=dict(_delete_=True), data_prefix=dict()))\n"
    )  # fmt: skip
    with pytest.raises(ValueError, match=f'--cfg-options {key}: .*{hint}' if 'has no type' not in hint else hint):
        read_config(str(tmp_path / 'child.py'), {key: 3})


@pytest.mark.parametrize(
    'key',
    [
        'model.omh_head.type', 'model.backbone.precision', 'model.test_cfg.crf.iterations', 'randomness.deterministic',
        'optim_wrapper.clip_grad.max_norm', 'optim_wrapper.paramwise_cfg.custom_keys.mine.lr_mult',
        'default_hooks.checkpoint.save_best', 'env_cfg.dist_cfg.timeout', 'train_dataloader.dataset.dataset.indices',
        'val_dataloader.num_batch_per_epoch', 'train_cfg.val_begin', 'visualizer.save_dir', 'test_cfg.fp16',
        'model.backbone.backbone.init_cfg',
    ],
)  # fmt: skip
def test_new_options_that_a_part_takes_pass(key):
    value = {'model.omh_head.type': 'OMHHead'}.get(key, 3)
    assert value_at(read_config(FOLDER, {key: value}).to_dict(), key) == value


def test_the_scope_of_a_part_says_whose_options_it_takes():
    own = [dict(type='LoadImageFromFile', _scope_='omh_mmseg'), dict(type='PackSegInputs')]
    config = read_config(FOLDER, {'test_pipeline': own, 'val_dataloader.dataset.pipeline': own})
    assert replace_settings(config, {'test_pipeline.0.bands': Text('2,1,0')}).test_pipeline[0]['bands'] == [2, 1, 0]
    with pytest.raises(ValueError, match=r'test_pipeline.0 \(LoadImage\) has no band; .*test_pipeline.0.bands'):
        replace_settings(config, {'test_pipeline.0.band': 3})


def test_new_parts_are_checked_as_well():
    good = dict(type='UnsupervisedIoUMetric', bootstrap=3)
    assert read_config(FOLDER, {'val_evaluator': good}).val_evaluator.bootstrap == 3
    with pytest.raises(ValueError, match=r'test_evaluator \(UnsupervisedIoUMetric\) has no boots; did you mean'):
        read_config(FOLDER, {'test_evaluator': dict(good, boots=3)})


def test_a_variable_of_the_file_is_refused_with_the_keys_that_took_it(tmp_path):
    (tmp_path / 'child.py').write_text(f'_base_ = {FOLDER!r}\nmax_iters = 7\ntrain_cfg = dict(max_iters=max_iters)\n')
    with pytest.raises(ValueError, match='max_iters is a variable of the config file.*mean train_cfg.max_iters'):
        read_config(str(tmp_path / 'child.py'), {'max_iters': 3})


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('randomness = dict(sed=1)', 'randomness has no sed; did you mean randomness.seed'),
        ('env_cfg = dict(cudnn_bench=True)', 'env_cfg has no cudnn_bench; did you mean env_cfg.cudnn_benchmark'),
        ('default_hooks = dict(logr=dict(interval=3))', 'default_hooks.logr has no type; did you mean'),
        ('train_dataloader = dict(batchsize=3)', 'train_dataloader has no batchsize'),
        ('optim_wrapper = dict(paramwise_cfg=dict(norm_mult=0))', 'optim_wrapper.paramwise_cfg has no norm_mult'),
        ('optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(mine=dict(lr_mul=2))))', 'mean .*mine.lr_mult'),
    ],
)
def test_what_mmengine_would_pass_over_in_a_file_is_refused(tmp_path, text, message):
    """By our commands, and by the parts of a run that see its config, under mmseg's own."""
    (tmp_path / 'child.py').write_text(f'_base_ = {FOLDER!r}\n{text}\n')
    with pytest.raises(ValueError, match=message):
        read_config(str(tmp_path / 'child.py'))
    with pytest.raises(ValueError, match=message):
        check_settings(Config.fromfile(tmp_path / 'child.py'))


def test_a_constructor_of_another_project_has_options_of_its_own(tmp_path):
    (tmp_path / 'child.py').write_text(
        f"_base_ = {FOLDER!r}\noptim_wrapper = dict(constructor='LayerDecay', paramwise_cfg=dict(num_layers=12))\n"
    )
    assert read_config(str(tmp_path / 'child.py')).optim_wrapper.paramwise_cfg.num_layers == 12


@pytest.mark.parametrize(
    'key', ['work_dir', 'load_from', 'auto_scale_lr.enable', 'custom_hooks', 'sync_bn', 'runner_type']
)
def test_keys_that_mmengine_reads_pass(key):
    config = read_config(FOLDER, {key: 'x'})
    value = config
    for part in key.split('.'):
        value = value[part]
    assert value == 'x'


def test_a_shared_option_needs_no_variable():
    part = dict(type='FolderSegDataset', data_root='a')
    config = replace_settings(Config(dict(val_dataloader=dict(dataset=part))), dict(data_root='b'))
    assert config.val_dataloader.dataset.data_root == 'b'
    with pytest.raises(ValueError, match='the config has no layout'):
        replace_settings(config, dict(layout='mmseg'))


@pytest.mark.parametrize(
    ('key', 'reason'),
    [
        ('load_from.path', 'below a value that has no options'),
        ('model.num_classes.more', 'model.num_classes is .*, which has no options'),
        ('custom_hooks.99', 'custom_hooks is a list of .*; got 99'),
        ('test_pipeline.9.size', 'test_pipeline is a list of .*, whose places are 0 to .*; got 9'),
        ('test_pipeline.-1.size', 'got -1'),
        ('test_pipeline.first.size', 'got first'),
        ('model.data_preprocessor.mean.3', 'model.data_preprocessor.mean is a list of 3'),
        ('test_pipeline.1', 'has options of its own, and takes no single value; got 3'),
        ('model', 'takes no single value'),
        ('model.backbone', 'takes no single value'),
        ('train_cfg', 'takes no single value'),
    ],
)
def test_a_key_that_has_no_place_is_refused(key, reason):
    with pytest.raises(ValueError, match=f'--cfg-options {key}: .*{reason}'):
        read_config(FOLDER, {key: 3})


def test_elements_of_lists_are_replaced_and_merged():
    options = {
        'model.data_preprocessor.mean.1': Text('5'),
        'test_pipeline.1': Text('dict(size=96)'),
        'visualizer.vis_backends.0': dict(_delete_=True, type='TensorboardVisBackend'),
    }
    former, config = read_config(FOLDER), read_config(FOLDER, options)
    assert config.model.data_preprocessor.mean[::2] == former.model.data_preprocessor.mean[::2]
    assert config.model.data_preprocessor.mean[1] == 5
    assert config.test_pipeline[1] == {**former.test_pipeline[1], 'size': 96}
    assert config.test_dataloader.dataset.pipeline[1] == config.test_pipeline[1]
    assert config.visualizer.vis_backends == [dict(type='TensorboardVisBackend')]


NUMBERS = {
    'resume': ('2', '0.0'),
    'compile': ('maybe', '1'),
    'find_unused_parameters': ('perhaps', '1'),
    'train_cfg.max_iters': ('0', '-3', '2.5', 'inf', 'nan', 'True', "'3'"),
    'train_cfg.val_interval': ('0', '2.5', 'nan'),
    'randomness.seed': ('-1', '2.5', 'nan', str(2**32)),
    'optim_wrapper.accumulative_counts': ('0', '2.5', 'nan'),
    'optim_wrapper.optimizer.lr': ('inf', 'nan', '-1', "'1e-3'"),
    'optim_wrapper.optimizer.betas': ('0.9,1.5', '0.9,nan'),
    'optim_wrapper.clip_grad': ('dict(max_norm=-1.0)', 'dict(max_norm=nan)', 'dict(max_norm=0)', 'dict(max_norm=-1)'),
    'default_hooks.checkpoint.interval': ('nan', '2.5', '-2'),
    'default_hooks.checkpoint.max_keep_ckpts': ('2.5', 'inf'),
    'default_hooks.logger.interval': ('0', 'nan'),
    'train_dataloader.batch_size': ('0', '2.5', 'nan', 'True'),
    'val_dataloader.num_workers': ('-1', '1.5', 'inf'),
}


@pytest.mark.parametrize(('key', 'texts'), NUMBERS.items(), ids=NUMBERS)
def test_numbers_that_mmengine_would_take_as_they_are_have_ranges(key, texts):
    for text in texts:
        with pytest.raises(ValueError, match=f'{key}.* must be .*; got '):
            read_config(FOLDER, {key: Text(text)})


def test_modules_that_are_named_beside_the_config_are_imported():
    with pytest.raises(ValueError, match='--cfg-options custom_imports: .*no_such_module'):
        read_config(FOLDER, {'custom_imports.imports': ['no_such_module']})


def test_no_name_is_suggested_in_place_of_itself():
    demo = FOLDER.replace('mobilenet-v2_folder', 'vit-t8_demo')
    for key in ('label_map', 'env_cfg.mp_cfg.foo', 'visualizer.vis_backends.0.foo'):
        with pytest.raises(ValueError) as raised:
            read_config(demo, {key: 1})
        hint = str(raised.value).partition('did you mean ')[2]
        assert not hint.startswith((f'{key}?', key.rpartition('.')[0] + '?', key.rpartition('.')[0] + '.type')), hint


def test_our_configs_give_no_warning(warnings):
    for path in CONFIGS.glob('*.py'):
        read_config(str(path))
    assert warnings == []


@pytest.mark.parametrize(
    ('name', 'meant'), [('num_clases', 'num_classes'), ('work_dirs', 'work_dir'), ('modle', 'model')]
)
def test_a_misspelt_variable_of_a_file_is_told(tmp_path, warnings, name, meant):
    mine = 'helper = 1\ncrop_size = 3\ntrain_pipeline = []\nval_pipeline = []\noptimizer = dict()\n'
    (tmp_path / 'child.py').write_text(f'_base_ = {FOLDER!r}\n{name} = 20\n{mine}')
    assert read_config(str(tmp_path / 'child.py')).model.num_classes == 11
    (text,) = warnings
    assert f'{name} reaches nothing; did you mean {meant}?' in text


def test_a_misspelt_variable_is_told_once_by_the_parts_of_a_run(tmp_path, warnings):
    (tmp_path / 'child.py').write_text(f'_base_ = {FOLDER!r}\nload_form = 3\n')
    for _ in range(2):
        check_settings(Config.fromfile(tmp_path / 'child.py'))
    assert [text for text in warnings if 'load_form reaches nothing; did you mean load_from?' in text] == warnings
    assert len(warnings) == 1


def test_the_test_pipeline_reaches_all_that_is_scored(warnings):
    config = read_config(FOLDER, {'test_pipeline.1.size': Text('480')})
    pipelines = [config[f'{loader}_dataloader'].dataset.pipeline for loader in ('val', 'test')]
    pipelines += [config.test_pipeline, config.tta_pipeline]
    assert [steps[1]['size'] for steps in pipelines] == [480] * 4 and warnings == []
    config = read_config(FOLDER, {'test_pipeline': [dict(type='LoadImageFromFile')]})
    assert config.test_dataloader.dataset.pipeline == config.val_dataloader.dataset.pipeline == config.test_pipeline
    assert warnings == []


def test_notes_of_a_base_from_the_package_are_no_difference(warnings, tmp_path):
    """What README's own config inherits has ``_scope_`` in every step of one pipeline, in the first of the other."""
    (tmp_path / 'mine.py').write_text("_base_ = 'omh_mmseg::omh_stego_vit-t8_demo.py'\n")
    read_config(str(tmp_path / 'mine.py'))
    assert warnings == []


def test_full_keys_beside_the_test_pipeline_win(warnings):
    options = {'test_pipeline.1.size': 480, 'val_dataloader.dataset.pipeline.1.size': 64}
    config = read_config(FOLDER, options)
    assert config.val_dataloader.dataset.pipeline[1]['size'] == 64
    assert config.test_dataloader.dataset.pipeline[1]['size'] == 480
    read_config(FOLDER, {'test_dataloader.dataset.pipeline.1.size': 480})
    (text,) = warnings
    assert 'test_pipeline, which prepares single images, differs from test_dataloader.dataset.pipeline' in text


def test_a_test_pipeline_of_a_file_reaches_all_or_is_refused(tmp_path):
    steps = [dict(type='LoadImageFromFile', imdecode_backend='pillow'),
             dict(type='ResizeShortSide', size=64, interpolation='bilinear', divisor=16),
             dict(type='LoadOptionalAnnotations'), dict(type='PackSegInputs')]  # fmt: skip
    (tmp_path / 'child.py').write_text(f'_base_ = {FOLDER!r}\ntest_pipeline = {steps}\n')
    config = read_config(str(tmp_path / 'child.py'))
    assert config.test_dataloader.dataset.pipeline[1]['size'] == config.tta_pipeline[1]['size'] == 64
    with pytest.raises(ValueError, match=r'test_pipeline .*test_dataloader.dataset.pipeline.1.size=64'):
        check_settings(Config.fromfile(tmp_path / 'child.py'))
    read_config(str(tmp_path / 'child.py')).dump(tmp_path / 'dumped.py')
    check_settings(Config.fromfile(tmp_path / 'dumped.py'))


def test_test_pipeline_takes_a_bare_image(folder):
    from mmengine.dataset import Compose
    from mmengine.registry import DefaultScope, init_default_scope

    init_default_scope('mmseg')
    path = folder(count=1, size=(60, 90)) / 'images' / 'train' / '000.png'
    for name, shape in ((FOLDER, (240, 352)), (COCO, (320, 320))):
        cfg = Config.fromfile(name)
        assert cfg.test_pipeline[0].type == 'LoadImageFromFile'
        packed = Compose(cfg.test_pipeline)(dict(img_path=str(path)))
        assert packed['inputs'].shape[1:] == shape
        assert packed['data_samples'].ori_shape == (60, 90)
    DefaultScope._instance_dict.clear()


@pytest.mark.parametrize('text', ['a = (', 'a = 1 / 0', 'a = b', "raise RuntimeError('no')"])
def test_a_config_file_that_raises_an_error_is_named(tmp_path, text):
    (tmp_path / 'mine.py').write_text(f'{text}\n')
    with pytest.raises(ValueError, match=r'the config file .*mine.py cannot be read \(\w+Error: '):
        read_config(str(tmp_path / 'mine.py'))


def test_remedies_of_what_mmengine_says(tmp_path: Path) -> None:
    """Two whole configs as bases, and a setting that is left of a part whose type was changed."""
    path = tmp_path / 'two.py'
    path.write_text("_base_ = ['omh_mmseg::stego_vit-t8_demo.py', 'omh_mmseg::smooseg_vit-t8_demo.py']\n")
    with pytest.raises(ValueError, match=r'Duplicate key .*\. Several of its bases are whole configs: name one'):
        read_config(str(path))
    part = read_config('smooseg_vit-t8_demo', {'model.cluster_probe.type': 'ClusterProbe'}).model.cluster_probe
    with pytest.raises(ValueError, match=r"'temperature'\. Where .* PART=dict\(_delete_=True, type='ClusterProbe'"):
        with building():
            MODELS.build({**part, 'in_channels': 4, 'num_classes': 3})
