"""A run and what it was trained with: in its checkpoint, in every command, in both inference interfaces."""

from __future__ import annotations

import copy
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope, init_default_scope

from omh_mmseg.apis import SegmentationInferencer, init_model
from omh_mmseg.engine import launch
from omh_mmseg.preparation.neighbours import prepare_neighbours
from omh_mmseg.registry import MODELS
from omh_mmseg.structures.provenance import ProvenanceError
from omh_mmseg.switches import ACCEPT
from omh_mmseg.utils.digests import weights_digest

REPOSITORY = Path(__file__).resolve().parents[2]
DEMO = REPOSITORY / 'configs' / 'omh_stego_vit-t8_demo.py'
MEAN, OTHER = [127.5] * 3, [123.675, 116.28, 103.53]
BOTH = r'normalisation.mean was \[127.5, 127.5, 127.5\] and is \[123.675, 116.28, 103.53\] now'


@pytest.fixture(autouse=True)
def scope(monkeypatch) -> Iterator[None]:
    """No scope, run or accepted difference of another test."""
    monkeypatch.delenv(ACCEPT, raising=False)
    DefaultScope._instance_dict.clear()
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture
def warnings(monkeypatch) -> list[str]:
    """What a run warns of."""
    lines: list[str] = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *_: lines.append(text))
    return lines


def prepared(folder: Path) -> Config:
    """The demo config on 12 + 4 scenes with a tiny backbone, trained with mean and standard deviation 127.5."""
    config = Config.fromfile(str(DEMO))
    config.model.backbone.backbone.arch = dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48)
    weights = folder / 'vit.pth'
    if not weights.exists():
        init_default_scope('mmseg')
        torch.manual_seed(0)
        torch.save(MODELS.build(copy.deepcopy(config.model.backbone.backbone)).state_dict(), weights)
    options = {
        'model.backbone.checkpoint': str(weights), 'model.data_preprocessor.mean': MEAN,
        'model.data_preprocessor.std': MEAN, 'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2,
        'default_hooks.checkpoint.interval': 2, 'train_dataloader.batch_size': 4,
        'train_dataloader.dataset.index': str(folder / 'index_{fingerprint}.npz'), 'log_level': 'WARNING',
    }  # fmt: skip
    for loader, dataset in dict(train='dataset.dataset', val='dataset', test='dataset').items():
        options[f'{loader}_dataloader.num_workers'] = 0
        options[f'{loader}_dataloader.persistent_workers'] = False
        options[f'{loader}_dataloader.{dataset}.data_root'] = str(folder / 'scenes')
        options[f'{loader}_dataloader.{dataset}.counts'] = dict(train=12, val=4)
    config.merge_from_dict(options)
    return config


def train(config: Config) -> None:
    config.experiment_name = f'{Path(config.work_dir).name}_{np.random.randint(1 << 30)}'
    launch.build_runner(config).train()
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='module')
def run(tmp_path_factory) -> SimpleNamespace:
    """A run, nothing made beforehand: ``work_dir``, ``checkpoint``, ``config`` (the file that it left), ``folder``."""
    folder = tmp_path_factory.mktemp('run')
    config = prepared(folder)
    config.work_dir = str(folder / 'my_run')
    config.dump(str(folder / 'mine.py'))
    train(Config.fromfile(str(folder / 'mine.py')))
    work_dir = folder / 'my_run'
    return SimpleNamespace(
        folder=folder, work_dir=work_dir, config=work_dir / 'mine.py', checkpoint=work_dir / 'iter_2.pth',
        images=sorted((folder / 'scenes' / 'images' / 'val').iterdir()),
    )  # fmt: skip


@pytest.fixture
def changed(run, tmp_path) -> Callable[..., Path]:
    """A config file like the run's, with other settings."""

    def write(**settings: object) -> Path:
        config = Config.fromfile(str(run.config))
        config.merge_from_dict({key.replace('__', '.'): value for key, value in settings.items()})
        config.work_dir = str(tmp_path / 'work')
        config.dump(str(tmp_path / 'changed.py'))
        return tmp_path / 'changed.py'

    return write


@pytest.fixture
def command(monkeypatch, tmp_path, capsys) -> Callable[..., str]:
    """Run one of the commands in this process; what it printed, and what it ended with."""

    def call(tool: str, *words: object) -> str:
        monkeypatch.chdir(tmp_path)
        path = REPOSITORY / 'tools' / tool
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, words)])
        end = None
        try:
            runpy.run_path(str(path), run_name='__main__')
        except SystemExit as error:
            end = error.code
        DefaultScope._instance_dict.clear()
        return f'{capsys.readouterr().out}{end if isinstance(end, str) else ""}'

    return call


DEFAULTS = dict(model__data_preprocessor__mean=OTHER, model__data_preprocessor__std=[58.395, 57.12, 57.375])


def test_a_checkpoint_says_what_it_was_trained_with(run):
    record = torch.load(run.checkpoint, weights_only=True)['meta']['trained_with']
    assert record['normalisation'] == dict(mean=MEAN, std=MEAN, swaps_channels=True)
    assert record['size'] == ['ResizeShortSide(divisor=8, interpolation=bilinear, size=128)']
    for part in ('reading', 'train_reading', 'single_reading'):
        assert record[part] == dict(value_range=None, bands=None)
    assert record['backbone']['backbone']['patch_size'] == 8 and 'checkpoint' not in record['backbone']
    assert record['num_classes'] == 6 and record['classes'][0] == 'sky' and len(record['palette']) == 6
    assert record['hierarchy'] == dict(levels=[6, 12, 24], entropy_weight=0.05, marginal='uniform')
    assert record['head'] == dict(segmentor='STEGO', layers=['Conv2d', 'Conv2d', 'ReLU', 'Conv2d'])
    wrapped = torch.load(run.folder / 'vit.pth', weights_only=True)
    assert record['weights'] == weights_digest({f'backbone.{key}': value for key, value in wrapped.items()})


def test_stegos_index_was_made_on_first_use(run):
    (index,) = run.folder.glob('index_*')
    assert len(index.stem) == len('index_12345678-12345678')


def test_the_readmes_other_backbone_makes_another_index(run, tmp_path, warnings):
    """With random weights, those of another process would make the same index."""
    (first,) = run.folder.glob('index_*')
    content = first.read_bytes()
    child = tmp_path / 'child.py'
    child.write_text(
        f"""_base_ = [{str(run.config)!r}]
work_dir = {str(tmp_path / 'child')!r}
train_cfg = dict(max_iters=1)
model = dict(
    backbone=dict(
        type='FrozenBackbone',
        backbone=dict(
            _delete_=True, type='mmpretrain.ResNet', depth=18, base_channels=8, stem_channels=8, out_indices=(2, 3)
        ),
        out_indices=(0, 1),
        checkpoint=None,
        key_converter=None,
        position_interpolation=None,
    )
)
"""
    )
    train(Config.fromfile(str(child)))
    assert first.read_bytes() == content
    (second,) = set(run.folder.glob('index_*')) - {first}
    assert len([line for line in warnings if 'random weights, the same in every process' in line]) == 1
    torch.manual_seed(99)
    assert prepare_neighbours(Config.fromfile(str(child)), progress=False) == (second, False)
    second.unlink()


def test_other_normalisation_is_refused_by_the_inference_classes(run, changed, warnings):
    """Measured before: other classes on 27 to 45 % of the pixels, without a word."""
    config = changed(**DEFAULTS)
    with pytest.raises(ProvenanceError, match=f'iter_2.pth was trained with other settings .*{BOTH}.*std was .*accept'):
        SegmentationInferencer(config, run.checkpoint, 'cpu')
    assert not [line for line in warnings if 'trained with' in line]
    other = SegmentationInferencer(config, run.checkpoint, 'cpu', accept_differences=True)(str(run.images[0]))
    (line,) = (line for line in warnings if 'trained with' in line)
    assert 'This was accepted' in line
    own = SegmentationInferencer(run.work_dir, device='cpu')(str(run.images[0]))
    assert len([line for line in warnings if 'trained with' in line]) == 1
    assert (own.clusters['probe'] != other.clusters['probe']).any()


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(model__data_preprocessor__bgr_to_rgb=False), 'normalisation.swaps_channels was True and is False now'),
        (dict(model__data_preprocessor__test_cfg__size_divisor=32), 'padding.divisor was 8 and is 32 now'),
        (dict(test_dataloader__dataset__pipeline__1__size=96), r'size was \[ResizeShortSide\(.*size=128.*size=96\)\]'),
        (
            dict(test_pipeline__0__value_range=[0, 4095]),
            r'single_reading.value_range was None and is \[0, 4095\] now',
        ),
        (dict(test_pipeline__0__max_pixels=10**6, test_pipeline__1__size=96), 'single_size was .*128.* and is .*96'),
        (dict(test_dataloader__dataset__pipeline__0__bands=[3, 2, 1]), r'reading.bands was None and is \[3, 2, 1\]'),
        (dict(model__backbone__input_fit='resize'), 'backbone.input_fit was nothing and is resize now'),
        (dict(model__backbone__feature='keys'), 'backbone.feature was nothing and is keys now'),
        (dict(model__backbone__reflect_padding=1), 'backbone.reflect_padding was nothing and is 1 now'),
        (dict(model__decode_head__act_cfg=dict(type='SiLU')), 'head.layers was .*ReLU.* and is .*SiLU.* now'),
        (dict(model__omh_head__plan=dict(entropy_weight=0.5)), 'hierarchy.entropy_weight was 0.05 and is 0.5 now'),
    ],
    ids=str,
)
def test_every_part_counts(run, changed, change, message):
    with pytest.raises(ProvenanceError, match=message):
        init_model(changed(**change), run.checkpoint, 'cpu')


def test_the_readers_shared_options_count_in_every_command_and_under_a_protocol(run, command):
    """A model of 12-bit images, say, to which those of 16 bits were shown without a word."""
    both = r'reading.value_range was None and is [0, 4095] now'
    option = ['--cfg-options', 'value_range=[0,4095]']
    for tool, words in {'test.py': ['--protocol', 'stego-96-no-crf'], 'predict.py': run.images[:1]}.items():
        assert both in command(tool, run.work_dir, *words, *option), tool
    with pytest.raises(ProvenanceError, match=r'reading.bands was None and is \[2\] now'):
        SegmentationInferencer(run.work_dir, device='cpu', options={'bands': [2]})


def test_what_predictions_do_not_depend_on_may_differ(run, changed, warnings):
    init_model(
        changed(
            model__backbone__checkpoint=None, model__omh_head__reach__begin=7, model__decode_head__dropout_ratio=0.3,
            model__test_cfg__flip=True, train_dataloader__batch_size=2,
        ),
        run.checkpoint, 'cpu',
    )  # fmt: skip
    assert not [line for line in warnings if 'trained with' in line]


def test_mmsegs_own_inference(run, changed, monkeypatch):
    from mmseg.apis import MMSegInferencer
    from mmseg.apis import init_model as mmseg_model

    config = Config.fromfile(str(changed(**DEFAULTS)))
    for load in (
        lambda cfg: mmseg_model(cfg, str(run.checkpoint), device='cpu'),
        lambda cfg: MMSegInferencer(cfg, str(run.checkpoint), device='cpu'),
    ):
        with pytest.raises(ProvenanceError, match=f'{run.checkpoint} was trained with other settings.*{BOTH}'):
            load(copy.deepcopy(config))
        load(Config.fromfile(str(run.config)))
        monkeypatch.setenv(ACCEPT, '1')
        load(copy.deepcopy(config))
        monkeypatch.delenv(ACCEPT)


def stripped(run, path: Path, **changes: object) -> Path:
    content = torch.load(run.checkpoint, weights_only=False)
    del content['meta']['trained_with']
    torch.save(content | changes, path)
    return path


def test_a_checkpoint_that_says_nothing_goes_on_with_one_warning(run, tmp_path, warnings):
    from mmseg.apis import init_model as mmseg_model

    silent = stripped(run, tmp_path / 'silent.pth')
    for load in (
        lambda: init_model(run.config, silent, 'cpu'),
        lambda: mmseg_model(Config.fromfile(str(run.config)), str(silent), device='cpu'),
    ):
        warnings.clear()
        load()
        assert len([line for line in warnings if f'{silent} does not say what it was trained with' in line]) == 1


def test_a_backbone_that_the_checkpoint_lacks_is_that_of_its_own_file(run, changed, command, tmp_path):
    """As of the weights that the package ships; it counts as it is when it predicts, not as it is built."""
    content = torch.load(run.checkpoint, weights_only=False)
    state = {key: value for key, value in content['state_dict'].items() if not key.startswith('backbone.')}
    lean = tmp_path / 'lean.pth'
    torch.save(content | dict(state_dict=state), lean)
    assert 'trained with' not in command('test.py', run.config, lean, '--work-dir', 'scores')
    assert list((tmp_path / 'scores').glob('*/*.json'))
    weights = torch.load(run.folder / 'vit.pth', weights_only=True)
    torch.save({key: value + 1 for key, value in weights.items()}, tmp_path / 'others.pth')
    others = changed(model__backbone__checkpoint=str(tmp_path / 'others.pth'))
    printed = command('test.py', others, lean)
    assert f'{lean} was trained with other settings than the config has: weights was' in printed
    printed = command('test.py', changed(model__backbone__checkpoint=None), lean)
    assert 'trained with' not in printed and 'lacks' in printed and 'backbone.' in printed


def test_commands_refuse_and_accept(run, changed, command, tmp_path):
    config = changed(**DEFAULTS)
    for tool, words in {
        'test.py': [], 'predict.py': run.images[:1], 'analysis_tools/compare_protocols.py': ['--protocols', 'mmseg'],
        'analysis_tools/fit_assignment.py': [],
    }.items():  # fmt: skip
        printed = command(tool, config, run.checkpoint, *words)
        assert f'{Path(tool).name}: {run.checkpoint} was trained with other settings' in printed, tool
        assert printed.count('normalisation.mean was [127.5') == 1 and '--accept-differences' in printed
    assert not (tmp_path / 'predictions').exists()
    printed = command('predict.py', config, run.checkpoint, *run.images[:1], '--accept-differences')
    assert '1 images in' in printed


def test_test_compares_size_classes_and_protocols_do_not(run, changed, command, warnings):
    sized = 'test_dataloader.dataset.pipeline.1.size=96'
    printed = command('test.py', run.work_dir, '--work-dir', 'scores', '--cfg-options', sized)
    assert 'size was [ResizeShortSide(divisor=8, interpolation=bilinear, size=128)]' in printed
    names = torch.load(run.checkpoint, weights_only=True)['meta']['trained_with']['classes'][::-1]
    renamed = changed(test_dataloader__dataset__metainfo=dict(classes=names))
    printed = command('test.py', renamed, run.checkpoint, '--work-dir', 'scores')
    assert f'classes was [{", ".join(names[::-1])}] and is [{", ".join(names)}] now' in printed
    printed = command('test.py', run.work_dir, '--protocol', 'stego-96-no-crf', '--work-dir', 'scores')
    assert 'trained with' not in printed and not [line for line in warnings if 'trained with' in line]


def test_a_resume_with_other_settings_is_refused(run, changed, tmp_path, warnings):
    shutil.copytree(run.work_dir, tmp_path / 'work')
    (tmp_path / 'work' / 'last_checkpoint').write_text(str(tmp_path / 'work' / 'iter_2.pth'))
    before = (tmp_path / 'work' / 'mine.py').read_text()
    weights = torch.load(run.folder / 'vit.pth', weights_only=True)
    torch.save({key: value + 1 for key, value in weights.items()}, tmp_path / 'others.pth')
    pipeline = Config.fromfile(str(run.config)).train_dataloader.dataset.dataset.pipeline
    for change, message in (
        (DEFAULTS, BOTH),
        (dict(model__backbone__checkpoint=str(tmp_path / 'others.pth')), 'weights was .* and is'),
        (dict(test_dataloader__dataset__pipeline__1__size=96), r'size was \[ResizeShortSide'),
        (
            dict(train_dataloader__dataset__dataset__pipeline=[
                pipeline[0], dict(type='ResizeShortSide', size=64), *pipeline[1:]
            ]),
            r'train_size was \[\] and is \[ResizeShortSide\(size=64\)\] now',
        ),
    ):  # fmt: skip
        config = Config.fromfile(str(changed(**change, train_cfg__max_iters=3)))
        shutil.copy(tmp_path / 'changed.py', tmp_path / 'mine.py')
        config = Config.fromfile(str(tmp_path / 'mine.py'))
        config.resume = True
        with pytest.raises(ProvenanceError, match=message):
            train(config)
        assert (tmp_path / 'work' / 'mine.py').read_text() == before
    config = Config.fromfile(str(changed(train_cfg__max_iters=3)))
    config.resume = True
    train(config)
    assert (tmp_path / 'work' / 'iter_3.pth').is_file()


def test_a_new_run_from_the_weights_is_warned(run, changed, warnings):
    config = Config.fromfile(str(changed(**DEFAULTS, train_cfg__max_iters=1, load_from=str(run.checkpoint))))
    train(config)
    (line,) = (line for line in warnings if 'which this run starts from' in line)
    assert 'normalisation.mean' in line
    record = torch.load(Path(config.work_dir) / 'iter_1.pth', weights_only=True)['meta']['trained_with']
    assert record['normalisation']['mean'] == OTHER


def test_a_work_directory_stands_for_config_and_checkpoint(run, command, tmp_path):
    before = run.config.read_text()
    printed = command('test.py', run.work_dir, '--protocol', 'stego-96-no-crf')
    assert 'test.py:' not in printed
    assert list(run.work_dir.glob('*/scores/test/scores.json')) and not (tmp_path / 'work_dirs').exists()
    assert run.config.read_text() == before
    photos = run.images[0].parent
    assert '4 images in' in command('predict.py', run.work_dir, photos)
    assert '2 images in' in command('predict.py', run.work_dir, '--overlay', 'none', *run.images[:2])
    assert '1 images in' in command('predict.py', run.work_dir, run.checkpoint, run.images[0])
    assert '1 images in' in command('predict.py', run.config, run.work_dir, run.images[0])
    assert 'give a checkpoint after it' in command('predict.py', run.config, photos)
    assert 'protocol' in command('analysis_tools/compare_protocols.py', run.work_dir, '--protocols', 'mmseg')
    fitted = command('analysis_tools/fit_assignment.py', run.work_dir, '--split', 'val', '--out', 'fitted.json')
    assert 'are in fitted.json' in fitted and run.config.read_text() == before


@pytest.mark.slow
def test_a_moved_work_directory(run, command, tmp_path):
    """Neither the paths of its old place nor the settings of its own start count."""
    moved = tmp_path / 'moved'
    shutil.copytree(run.work_dir, moved)
    config = Config.fromfile(str(moved / 'mine.py'))
    config.merge_from_dict(dict(resume=True, load_from='gone.pth', work_dir=str(tmp_path / 'gone')))
    config.dump(str(moved / 'mine.py'))
    printed = command('test.py', moved)
    assert 'test.py:' not in printed
    assert list(moved.glob('*/scores/test/scores.json')) and not (tmp_path / 'gone').exists()


@pytest.mark.slow
def test_hierarchies_of_work_directories(run, command, tmp_path):
    second = tmp_path / 'second'
    shutil.copytree(run.work_dir, second)
    options = ['--images', 2, '--device', 'cpu', '--out']
    assert 'level1' in command('analysis_tools/hierarchy.py', 'scores', run.work_dir, *options, 'scores')
    rows = (tmp_path / 'scores' / 'scores.csv').read_text()
    assert 'my_run' in rows and 'second' not in rows
    command('analysis_tools/hierarchy.py', 'stability', *options, 'stability', run.work_dir, second)
    assert list((tmp_path / 'stability').iterdir())
    assert 'written' in command('analysis_tools/hierarchy.py', 'parts', run.work_dir, *options, 'parts')
    plans = command('analysis_tools/hierarchy.py', 'plans', '--checkpoints', run.work_dir, '--out', 'plans')
    assert 'by entropy weight' in plans
    printed = command('analysis_tools/hierarchy.py', 'scores', run.config)
    assert 'hierarchy.py: ' in printed and 'give a checkpoint after it' in printed


def test_a_work_directory_that_is_copied_without_its_note_leaves_its_original_alone(run, command, tmp_path):
    """Its config names the original, which was resumed, and written to, in place of it."""
    copied = tmp_path / 'copied'
    shutil.copytree(run.work_dir, copied)
    (copied / 'last_checkpoint').unlink()
    before = sorted(run.work_dir.rglob('*'))
    printed = command('train.py', copied, '--resume', '--cfg-options', 'train_cfg.max_iters=3')
    assert f'{copied} has checkpoints, but no file last_checkpoint' in printed
    assert 'test.py:' not in command('test.py', copied) and list(copied.glob('*/scores'))
    assert sorted(run.work_dir.rglob('*')) == before


def test_a_config_that_a_resumed_run_left_begins_a_new_run_elsewhere(run, command, tmp_path):
    left = tmp_path / 'left'
    shutil.copytree(run.work_dir, left)
    (left / 'mine.py').write_text(f'{(left / "mine.py").read_text()}\nresume = True\n')
    load = ['--cfg-options', f'load_from={run.checkpoint}', 'train_cfg.max_iters=1']
    command('train.py', left / 'mine.py', '--work-dir', tmp_path / 'new', *load)
    assert int(torch.load(tmp_path / 'new' / 'iter_1.pth', weights_only=True)['state_dict']['iteration']) == 1


@pytest.mark.parametrize(
    ('option', 'reason'),
    [
        ('model.backbone.backbone.patch_size=0', 'the config cannot be built: '),
        ('model.backbone.backbone.depth=1', ''),
        ('test_pipeline=[]', 'the config has no test_pipeline'),
        ('model=None', 'the config has no model'),
        ('value_range=5', 'value_range must be'),
    ],
)
def test_what_cannot_be_built_is_one_line(run, command, option, reason):
    printed = command('predict.py', run.work_dir, run.images[0], '--accept-differences', '--cfg-options', option)
    assert 'predict.py: ' in printed and reason in printed


def test_cut_files_and_wrong_classes_are_named(run, command, tmp_path):
    content = run.checkpoint.read_bytes()
    content_of = torch.load(run.checkpoint, weights_only=False)
    for length in (100, 5000, len(content) // 2, len(content) - 1):
        (tmp_path / 'cut.pth').write_bytes(content[:length])
        printed = command('predict.py', run.config, tmp_path / 'cut.pth', run.images[0])
        assert f'predict.py: {tmp_path / "cut.pth"} ' in printed and 'damaged' in printed
    for named in (5, dict(classes=3), dict(classes=[1, 2]), dict(palette='x')):
        content_of['meta']['dataset_meta'] = named
        torch.save(content_of, tmp_path / 'named.pth')
        printed = command('predict.py', run.config, tmp_path / 'named.pth', run.images[0])
        assert f'predict.py: {tmp_path / "named.pth"} is no checkpoint of a run: its meta.dataset_meta' in printed


@pytest.mark.slow
def test_a_training_goes_on_in_its_work_directory(run, command, tmp_path):
    work = tmp_path / 'again'
    shutil.copytree(run.work_dir, work)
    (work / 'last_checkpoint').write_text(str(work / 'iter_2.pth'))
    config = Config.fromfile(str(work / 'mine.py'))
    config.load_from = 'started_from.pth'
    config.dump(str(work / 'mine.py'))
    assert 'go on with it by --resume' in command('train.py', work)
    command('train.py', work, '--resume', '--cfg-options', 'train_cfg.max_iters=3')
    assert (work / 'iter_3.pth').is_file() and 'iter_3' in (work / 'last_checkpoint').read_text()
