"""Protocols, test-time augmentation and prediction from the command line, in another directory."""

from __future__ import annotations

import json
import re
from pathlib import Path

import mmseg
import numpy as np
import pytest
from PIL import Image

TOOLS_OF_MMSEG = Path(mmseg.__file__).parent / '.mim' / 'tools'


def scores(work_dir: Path) -> dict:
    """What the protocol hook stored of the only test in a folder."""
    (stored,) = work_dir.glob('*/scores/test/scores.json')
    return json.loads(stored.read_text())


def maps(folder: Path) -> np.ndarray:
    return np.stack([np.array(Image.open(path)) for path in sorted(folder.glob('*.png'))])


@pytest.fixture(scope='module')
def checkpoint(trained) -> Path:
    return trained.work_dir / 'iter_4.pth'


@pytest.mark.slow
def test_protocol_is_printed_and_stored(trained, checkpoint, command, run, tmp_path):
    log = run(
        tmp_path,
        command(
            'test.py', trained.config, checkpoint, '--work-dir', 'run', '--protocol', 'stego-128', '--no-crf', '--out',
            'maps', options=trained.options | {'model.test_cfg.levels': '[1]'},
        ),
    )  # fmt: skip
    assert log.count('protocol stego-128-no-crf, changed: ') == 1 and 'flip=True' in log
    stored = scores(tmp_path / 'run')
    assert stored['protocol']['name'] == 'stego-128-no-crf, changed'
    assert stored['protocol']['changed'] == {'model.test_cfg.levels': [1]}
    assert stored['checkpoint'] == str(checkpoint) and 0 <= stored['scores']['probe/mIoU'] <= 100
    assert maps(tmp_path / 'maps').shape == (4, 128, 128)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['hp-64', 'smooseg-64', 'mmseg', 'mmseg-slide'])
def test_every_protocol_runs(trained, checkpoint, command, run, tmp_path, name):
    run(
        tmp_path,
        command(
            'test.py', trained.config, checkpoint, '--work-dir', 'run', '--protocol', name, options=trained.options
        ),
    )  # fmt: skip
    stored = scores(tmp_path / 'run')
    assert stored['protocol']['name'] == name and 'changed' not in stored['protocol']


@pytest.mark.slow
@pytest.mark.skipif(not TOOLS_OF_MMSEG.is_dir(), reason='mmseg was installed without its tools')
@pytest.mark.parametrize('tool', [TOOLS_OF_MMSEG / 'test.py', 'test.py'], ids=['mmseg', 'ours'])
def test_augmentation_is_flip_averaging(trained, checkpoint, command, run, tmp_path, tool):
    run(
        tmp_path,
        command(tool, trained.config, checkpoint, '--tta', '--work-dir', 'tta', '--out', 'tta_maps',
                options=trained.options),
    )  # fmt: skip
    run(
        tmp_path,
        command('test.py', trained.config, checkpoint, '--work-dir', 'flip', '--out', 'flip_maps',
                options=trained.options | {'model.test_cfg.flip': True}),
    )  # fmt: skip
    assert (maps(tmp_path / 'tta_maps') == maps(tmp_path / 'flip_maps')).mean() > 0.999
    augmented, flipped = scores(tmp_path / 'tta'), scores(tmp_path / 'flip')
    assert augmented['protocol']['tta'] is True and flipped['protocol']['tta'] is False
    assert augmented['scores']['probe/mIoU'] == pytest.approx(flipped['scores']['probe/mIoU'], abs=0.2)


@pytest.mark.slow
def test_compare_protocols(trained, checkpoint, command, run, tmp_path):
    text = run(
        tmp_path,
        command('analysis_tools/compare_protocols.py', trained.config, checkpoint, '--protocols', 'mmseg', 'stego-64',
                '--out', 'table.json', options=trained.options | {'model.test_cfg.levels': '[]'}),
    )  # fmt: skip
    rows = json.loads((tmp_path / 'table.json').read_text())
    assert [row['protocol']['name'] for row in rows] == ['mmseg', 'stego-64']
    for row in rows:
        (line,) = (line for line in text.splitlines() if line.startswith(f'{row["protocol"]["name"]} '))
        assert f'{row["scores"]["probe/mIoU"]:.2f}' in line and 'level1/mIoU' not in row['scores']


@pytest.fixture
def photos(tmp_path) -> Path:
    folder = tmp_path / 'photos'
    (folder / 'trip').mkdir(parents=True)
    random = np.random.default_rng(0)
    for name in ('one.jpg', 'trip/two.png'):
        Image.fromarray(random.integers(0, 256, (96, 120, 3), dtype=np.uint8)).save(folder / name)
    return folder


def test_predict_a_folder(trained, checkpoint, command, run, tmp_path, photos):
    log = run(
        tmp_path,
        command('predict.py', trained.config, checkpoint, 'photos', '--flip', '--crf', '--levels', 1, 3, '--overlay',
                'level3', '--grid', 'grid.png', '--grid-rows', 1, '--grid-photos',
                options={'model.backbone.checkpoint': 'null'}),
    )  # fmt: skip
    assert re.search(r'2 images in [0-9.]+ seconds; masks, overlays and summary.json are in predictions', log)
    with Image.open(tmp_path / 'grid.png') as grid:
        assert grid.width > grid.height > 300  # one row of the photo and two levels
    out = tmp_path / 'predictions'
    summary = json.loads((out / 'summary.json').read_text())
    assert list(summary['heads']) == ['probe', 'linear', 'level1', 'level3']
    assert summary['protocol']['test_cfg']['flip'] is True and summary['protocol']['test_cfg']['crf'] == {}
    # The run was validated with labels: its checkpoint knows the classes of the clusters.
    assert sorted(summary['heads']['probe']['classes']) == list(range(6)) and len(summary['classes']) == 6
    for name in ('one', 'trip/two'):
        assert np.array(Image.open(out / f'merged/level3/{name}.png')).max() < 6
        assert np.array(Image.open(out / f'classes/probe/{name}.png')).shape == (96, 120)
        assert (out / f'overlays/{name}.jpg').is_file()


@pytest.mark.slow
def test_predict_says_what_is_wrong(trained, checkpoint, command, run, tmp_path, photos):
    for arguments, message in (
        (['absent.jpg'], 'predict.py: there is no image absent.jpg'),
        (['photos', '--overlay', 'level9'], "predict.py: there is no head 'level9' to overlay"),
        (['photos', '--protocol', 'none'], "predict.py: there is no protocol 'none'; known are stego"),
    ):
        assert message in run(tmp_path, command('predict.py', trained.config, checkpoint, *arguments), status=1)
    (photos / 'broken.jpg').write_bytes(b'nothing')
    log = run(tmp_path, command('predict.py', trained.config, checkpoint, 'photos'), status=1)
    assert '2 images in' in log and 'broken.jpg: the image cannot be read' in log
