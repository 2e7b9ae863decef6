"""The shipped checkpoints: plain data, found by their config's name, worth what the metafile says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope

import omh_mmseg
from omh_mmseg import shipped
from omh_mmseg.apis import SegmentationInferencer
from omh_mmseg.commands import explore, predict
from omh_mmseg.datasets.demo_scenes import draw_examples
from omh_mmseg.structures.provenance import ProvenanceError
from omh_mmseg.utils.metafiles import read_models, weights_of

HOST, OMH = shipped.TRAINED


@pytest.fixture(autouse=True)
def scope() -> Iterator[None]:
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='module')
def scene(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = draw_examples(tmp_path_factory.mktemp('scenes'), 1)
    return str(folder / 'scene_00.png')


@pytest.mark.parametrize('name', shipped.TRAINED)
def test_plain_data_of_a_named_run(name: str) -> None:
    path = Path(omh_mmseg.checkpoint_path(name))
    assert path.stat().st_size < 2e6
    content = torch.load(path, weights_only=True)
    assert set(content) == {'meta', 'state_dict'}
    assert not any(key.startswith('backbone.') for key in content['state_dict'])
    assert all(value.isfinite().all() for value in content['state_dict'].values())
    told = read_models()[name]['Trained']
    assert (content['meta']['seed'], content['meta']['commit']) == (told['Seed'], told['Commit'])
    assert not told['Commit'].endswith('+') and content['meta']['trained_with']['weights']


def test_names_are_those_of_the_metafiles() -> None:
    assert {name for name, entry in read_models().items() if 'Weights' in entry} == set(shipped.TRAINED)
    for name in shipped.TRAINED:
        assert Path(weights_of(name)).resolve() == Path(omh_mmseg.checkpoint_path(name)).resolve()
    assert omh_mmseg.checkpoint_path() == omh_mmseg.checkpoint_path(f'{OMH}.py')


def test_found_by_the_name_of_the_config(scene: str, caplog: pytest.LogCaptureFixture) -> None:
    inferencer = SegmentationInferencer(OMH, device='cpu')
    assert inferencer.hierarchy.level_sizes == [6, 12, 24] and len(inferencer.classes) == 6
    result = inferencer(scene)
    assert set(result.clusters) == {'probe', 'linear', 'level1', 'level2', 'level3'}
    assert len(np.unique(result.clusters['level3'])) > 2 and set(result.classes) == set(result.clusters)
    assert 'trained with' not in caplog.text
    assert set(SegmentationInferencer(HOST, device='cpu')(scene).clusters) == {'probe', 'linear'}


def test_other_settings_are_refused() -> None:
    with pytest.raises(ProvenanceError, match='was trained with other settings'):
        SegmentationInferencer(OMH, device='cpu', options={'model.data_preprocessor.mean': [0.0, 0.0, 0.0]})


def test_absent_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match=f'no trained weights for stego_vit-s8_coco, but for {HOST} and {OMH}'):
        omh_mmseg.checkpoint_path('stego_vit-s8_coco')
    package = tmp_path / 'site-packages' / 'omh_mmseg'
    shutil.copytree(shipped.shipped_folder('configs'), package / '.mim' / 'configs')
    monkeypatch.setattr(shipped, 'PACKAGE', package)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=f'{OMH} are not where .* incomplete. Install .* anew, or .*: omh-train {OMH}'):
        predict.main(['--demo'])


def test_demo_of_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(explore, 'DEMO_SCENES', 2)
    predict.main(['--demo', '--device', 'cpu', '--grid-rows', '2'])
    written = tmp_path / 'predictions'
    summary = json.loads((written / 'summary.json').read_text())
    assert summary['counts'] == dict(segmented=6, failed=0, skipped=0, found=6)
    assert (written / 'levels.png').stat().st_size > 10_000 and len(list((written / 'scenes').iterdir())) == 6
    assert len(list((written / 'clusters/level3').iterdir())) == 6
    explore.main(['--demo', '--device', 'cpu', '--no-figures'])
    assert (tmp_path / 'report/index.html').is_file() and len(list((tmp_path / 'report/images').iterdir())) == 2


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        (['--demo', 'photos'], '--demo has a config, weights and images of its own: leave out photos'),
        ([], 'CONFIG, CHECKPOINT and IMAGES are needed, .*, or --demo'),
        ([OMH], 'CONFIG, CHECKPOINT and IMAGES are needed'),
        (['stego_vit-s8_coco', 'photos'], 'stego_vit-s8_coco is a config file: give a checkpoint after it'),
        ([OMH, 'absent_photos'], 'absent_photos'),
    ],
)
def test_words_of_the_commands(words: list[str], message: str) -> None:
    for command in (predict, explore):
        with pytest.raises(SystemExit, match=message):
            command.main(words)


@pytest.mark.slow
@pytest.mark.parametrize('name', shipped.TRAINED)
def test_scores_are_those_of_the_metafile(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On all validation scenes; float sums differ by machine."""
    from omh_mmseg.engine import launch

    monkeypatch.chdir(tmp_path)
    options = {'test_dataloader.num_workers': 0, 'test_dataloader.persistent_workers': False,
               'test_dataloader.dataset.counts': dict(train=1, val=80)}  # fmt: skip
    config = launch.load_config(name, str(tmp_path / 'run'), options=options)
    config.load_from = omh_mmseg.checkpoint_path(name)
    runner = launch.build_runner(config, 'test')
    runner.test()
    results = runner.test_evaluator.metrics[0].last_result
    told = read_models()[name]['Trained']['Figures']
    assert len(told) == 2 * len(results)
    for head, result in results.items():
        title = head.replace('level', 'level ').capitalize()
        assert told[f'{title} mIoU'] == pytest.approx(result.mean_iou, abs=0.3)
        assert told[f'{title} accuracy'] == pytest.approx(result.pixel_accuracy, abs=0.3)
