"""mmseg's own commands and inference helpers, from the installed package, on the demo config, in another directory."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope
from PIL import Image

from omh_mmseg.registry import DATASETS

TOOLS = Path(mmseg.__file__).parent / '.mim' / 'tools'

pytestmark = pytest.mark.skipif(not TOOLS.is_dir(), reason='mmseg was installed without its tools')


@pytest.fixture
def scope() -> Iterator[None]:
    """Leave no default scope behind."""
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='module')
def elsewhere(trained, command, run, tmp_path_factory) -> Path:
    """A directory in which mmseg's ``train.py`` has run for two steps."""
    folder = tmp_path_factory.mktemp('elsewhere')
    options = trained.options | {'train_cfg.max_iters': 2, 'train_cfg.val_interval': 2}
    run(folder, command(TOOLS / 'train.py', trained.config, options=options))
    return folder


def test_train(elsewhere):
    (work_dir,) = (folder for folder in (elsewhere / 'work_dirs').iterdir() if folder.name != 'feature_cache')
    assert work_dir.name == 'omh_stego_vit-t8_demo'
    assert (work_dir / 'iter_2.pth').is_file() and (work_dir / 'hierarchy.json').is_file()
    (figures,) = work_dir.glob('*/vis_data/scalars.json')
    assert 'level1/mIoU' in json.loads(figures.read_text().splitlines()[-1])


def test_an_option_that_the_tools_cannot_pass_on_is_refused_by_its_full_keys(trained, command, run, tmp_path):
    options = trained.options | {'num_classes': 7}
    log = run(tmp_path, command(TOOLS / 'train.py', trained.config, options=options), status=1)
    assert 'ValueError: num_classes at the top level of the config cannot reach all parts here' in log
    assert log.rstrip().endswith(': model.num_classes=7')


@pytest.fixture(scope='module')
def checkpoint(elsewhere, trained) -> Path:
    """Of that run, which ended with a validation."""
    return elsewhere / 'work_dirs' / trained.config.stem / 'iter_2.pth'


@pytest.fixture(scope='module')
def derived(trained, tmp_path_factory) -> Callable[..., Path]:
    """Write a config of its own on top of the demo's, for commands without ``--cfg-options``."""

    def write(name: str, **settings: object) -> Path:
        path = tmp_path_factory.mktemp('derived') / f'{name}.py'
        config = Config.fromfile(str(trained.config))
        for key, value in (trained.options | settings).items():
            config.merge_from_dict({key: str(value) if isinstance(value, Path) else value})
        config.dump(str(path))
        return path

    return write


@pytest.fixture(scope='module')
def tested(elsewhere, checkpoint, trained, command, run) -> SimpleNamespace:
    """mmseg's ``test.py`` with its options other than ``--show`` and ``--tta``; ``maps`` by file name."""
    folder = elsewhere / 'tested'
    log = run(
        folder,
        command(
            TOOLS / 'test.py', trained.config, checkpoint, '--work-dir', 'scores', '--out', 'maps', '--show-dir',
            'pictures', '--launcher', 'none', '--local-rank', 0, options=trained.options,
        ),
    )  # fmt: skip
    (path,) = (folder / 'scores').glob('*/*.json')
    maps = {path.name: np.array(Image.open(path)) for path in (folder / 'maps').glob('*.png')}
    return SimpleNamespace(log=log, scores=json.loads(path.read_text()), maps=maps, folder=folder)


def test_test_writes_scores_maps_pictures_and_report(tested):
    assert 'probe/mIoU' in tested.log
    assert len(tested.maps) == 4 and all(one.shape == (128, 128) for one in tested.maps.values())
    assert len(list((tested.folder / 'pictures').rglob('test_*.png'))) == 4
    (report,) = (tested.folder / 'scores').glob('*/scores/test')
    assert {'assignment.json', 'probe_classes.csv', 'linear_confusion.csv', 'level1_confusion.png'} <= {
        path.name for path in report.iterdir()
    }


def test_maps_are_classes(tested, checkpoint, trained, scope):
    """The validation's classes are in the checkpoint, so what ``--out`` writes compares with the labels directly."""
    state = torch.load(checkpoint, weights_only=False)['state_dict']
    assert sorted(state['assignment.pred_sem_seg'].tolist()) == [0, 1, 2, 3, 4, 5]
    assert len(state['assignment.pred_level3']) == 24 and state['assignment.pred_level3'].max() < 6
    assert 'predictions of 4 images, as class numbers' in tested.log
    config = Config.fromfile(str(trained.config))
    config.merge_from_dict(trained.options)
    init_default_scope('mmseg')
    dataset = DATASETS.build(config.test_dataloader.dataset)
    right = [
        (tested.maps[Path(item['data_samples'].img_path).name] == item['data_samples'].gt_sem_seg.data[0].numpy())
        for item in dataset
    ]
    assert 100 * np.mean(right) == pytest.approx(tested.scores['probe/aAcc'], abs=1e-3)


@pytest.mark.slow
def test_confusion_matrix(tested, trained, command, run):
    tool = TOOLS / 'analysis_tools' / 'confusion_matrix.py'
    run(tested.folder, command(tool, trained.config, 'maps', 'matrix', options=trained.options))
    with Image.open(tested.folder / 'matrix' / 'confusion_matrix.png') as picture:
        assert min(picture.size) > 1000


@pytest.mark.slow
def test_confusion_matrix_of_more_clusters_than_classes(tested, checkpoint, trained, command, run, tmp_path):
    """Where mmseg's command stops, the test's own matrix of a finer level has all clusters and counts every pixel."""
    images = sorted((trained.folder / 'scenes').rglob('val/*.png'))[:4]
    predict = command(
        'predict.py', trained.config, checkpoint, *images, '--levels', 3, '--overlay', 'none',
        options={'model.backbone.checkpoint': 'null'},
    )  # fmt: skip
    run(tmp_path, predict)
    (maps,) = {path.parent for path in (tmp_path / 'predictions' / 'clusters' / 'level3').rglob('*.png')}
    tool = TOOLS / 'analysis_tools' / 'confusion_matrix.py'
    log = run(tmp_path, command(tool, trained.config, maps, 'matrix', options=trained.options), status=1)
    assert 'cannot reshape array' in log
    options = trained.options | {'test_evaluator.heads.pred_level3': '[level3,majority]'}
    run(tmp_path, command('test.py', trained.config, checkpoint, '--work-dir', 'run', options=options))
    (path,) = (tmp_path / 'run').glob('*/scores/test/level3_confusion.csv')
    rows = [line.split(',') for line in path.read_text().splitlines()[1:]]
    assert [row[0] for row in rows] == [str(cluster) for cluster in range(24)]
    assert sum(int(count) for row in rows for count in row[2:]) == 4 * 128 * 128
    counted = np.bincount(np.concatenate([np.array(Image.open(each)).ravel() for each in maps.iterdir()]), minlength=24)
    assert [sum(map(int, row[2:])) for row in rows] == counted.tolist()


@pytest.mark.slow
def test_matching_fitted_on_the_training_split(tested, checkpoint, trained, command, run):
    """This project's command, and its result in mmseg's."""
    log = run(
        tested.folder,
        command(
            'analysis_tools/fit_assignment.py', trained.config, checkpoint, '--out', 'train.json', '--save',
            'train.pth', options=trained.options,
        ),
    )  # fmt: skip
    assert 'classes of the clusters of pred_sem_seg, pred_level1, pred_level2, pred_level3, matched on the train' in log
    fitted = json.loads((tested.folder / 'train.json').read_text())
    assert fitted['split'] == 'train' and sorted(fitted['assignment']['pred_sem_seg']) == [0, 1, 2, 3, 4, 5]
    options = trained.options | {'test_evaluator.assignment': 'train.json'}
    log = run(tested.folder, command(TOOLS / 'test.py', trained.config, checkpoint, options=options))
    assert 'probe (assignment of train.json)' in log
    options = trained.options | {'test_evaluator.assignment': 'checkpoint'}
    saved = tested.folder / 'train.pth'
    other = run(tested.folder, command(TOOLS / 'test.py', trained.config, saved, options=options))
    (one, two) = (re.search(r'probe/mIoU: ([0-9.]+)', text)[1] for text in (log, other))
    assert one == two and float(one) <= tested.scores['probe/mIoU'] + 1e-3


@pytest.mark.slow
def test_test_in_windows(checkpoint, trained, command, run, tmp_path):
    """With ``--show``, mmseg draws to windows alone; here to none."""
    words = command(
        TOOLS / 'test.py', trained.config, checkpoint, '--show', '--wait-time', 0.01, options=trained.options
    )
    assert 'probe/mIoU' in run(tmp_path, words)


@pytest.mark.slow
def test_plain_visualizer(checkpoint, trained, command, run, tmp_path):
    options = trained.options | {'visualizer.type': 'SegLocalVisualizer'}
    run(tmp_path, command(TOOLS / 'test.py', trained.config, checkpoint, '--show-dir', 'shown', options=options))
    assert len(list((tmp_path / 'shown').rglob('test_*.png'))) == 4


@pytest.mark.slow
def test_benchmark(checkpoint, derived, trained, command, run, tmp_path):
    """Of 200 images, as the command wants."""
    counts = {'test_dataloader.dataset.counts.val': 200, 'test_dataloader.dataset.data_root': tmp_path / 'scenes'}
    config = derived('benchmark', **counts)
    log = run(tmp_path, command(TOOLS / 'analysis_tools' / 'benchmark.py', config, checkpoint, '--work-dir', 'speed'))
    assert float(re.search(r'Overall fps: ([0-9.]+) img / s', log)[1]) > 0
    (written,) = (tmp_path / 'speed').glob('fps_*.json')
    assert json.loads(written.read_text())['average_fps'] > 0


def test_analyze_logs(elsewhere, command, run, tmp_path):
    pytest.importorskip('seaborn', reason='analyze_logs.py needs seaborn')
    (figures,) = (elsewhere / 'work_dirs').glob('*/*/vis_data/scalars.json')
    tool = TOOLS / 'analysis_tools' / 'analyze_logs.py'
    log = run(tmp_path, command(tool, figures, '--keys', 'loss', 'loss_knn', '--out', 'curve.png'))
    assert 'metric is loss_knn' in log and (tmp_path / 'curve.png').stat().st_size > 5000


@pytest.mark.slow
def test_tensorboard(derived, command, run, tmp_path):
    events = pytest.importorskip(
        'tensorboard.backend.event_processing.event_accumulator', reason='the TensorBoard backend needs tensorboard'
    )
    settings = {'visualizer.vis_backends': [dict(type='TensorboardVisBackend')], 'train_cfg.max_iters': 2}
    config = derived('tensorboard', **settings, **{'train_cfg.val_interval': 2})
    run(tmp_path, command(TOOLS / 'train.py', config, '--work-dir', 'run'))
    (folder,) = {path.parent for path in (tmp_path / 'run').rglob('events.out.tfevents*')}
    written = events.EventAccumulator(str(folder)).Reload()
    assert {'loss', 'probe/mIoU', 'probe/NMI'} <= set(written.Tags()['scalars'])


def test_get_flops(trained, command, run, tmp_path):
    log = run(
        tmp_path,
        command(
            TOOLS / 'analysis_tools' / 'get_flops.py', trained.config, '--shape', 128, 128,
            options={'model.backbone.checkpoint': trained.folder / 'vit.pth', 'work_dir': tmp_path},
        ),
    )  # fmt: skip
    flops = float(re.search(r'Flops: ([0-9.]+)G', log).group(1))
    parameters = float(re.search(r'Params: ([0-9.]+)M', log).group(1))
    # 256 tokens of 192 channels through four blocks: about 0.5 G; the ViT has 1.9 M parameters.
    assert 0.3 < flops < 1.5
    assert 1.8 < parameters < 3.0


@pytest.mark.slow
@pytest.mark.parametrize('arguments', [['--amp'], ['--resume']], ids=str)
def test_options_of_train(elsewhere, trained, command, run, arguments):
    """``--resume`` goes on; ``--amp`` is refused by mmengine without an accelerator, and reaches it unchanged."""
    options = trained.options | {'train_cfg.max_iters': 3, 'train_cfg.val_interval': 3}
    status = 1 if arguments == ['--amp'] and not torch.cuda.is_available() else 0
    log = run(elsewhere, command(TOOLS / 'train.py', trained.config, *arguments, options=options), status)
    if arguments == ['--resume']:
        assert 'resumed epoch: 0, iter: 2' in log
    elif status:
        assert 'AmpOptimizerWrapper`` is only available training on gpu' in log


@pytest.mark.slow
def test_browse_dataset(trained, command, run, tmp_path):
    run(
        tmp_path,
        command(
            TOOLS / 'analysis_tools' / 'browse_dataset.py', trained.config, '--output-dir', 'browsed', '--not-show',
            options=trained.options,
        ),
    )  # fmt: skip
    assert list((tmp_path / 'browsed').rglob('*.png'))


def test_inference_model_takes_a_path(trained, scope, tmp_path, monkeypatch):
    from mmseg.apis import inference_model, init_model

    monkeypatch.setattr(sys, 'argv', ['pytest'])
    config = Config.fromfile(str(trained.config))
    config.model.backbone.checkpoint = str(trained.folder / 'vit.pth')
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)).save(tmp_path / 'a.png')
    model = init_model(config, str(trained.work_dir / 'iter_4.pth'), device='cpu')
    result = inference_model(model, str(tmp_path / 'a.png'))
    for name in ('pred_sem_seg', 'pred_linear', 'pred_level1', 'pred_level2', 'pred_level3'):
        assert result.get(name).data.shape == (1, 90, 120)
    assert len(model.dataset_meta['classes']) == 6
    array = np.array(Image.open(tmp_path / 'a.png'))[:, :, ::-1].copy()
    assert torch.equal(inference_model(model, array).pred_sem_seg.data, result.pred_sem_seg.data)
