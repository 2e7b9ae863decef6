"""The demo and the analysis commands on a few drawn scenes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def options(demo) -> dict[str, object]:
    """Options that the host's config has as well as its twin's."""
    return {key: value for key, value in demo.options.items() if 'omh_head' not in key}


@pytest.fixture
def host(demo) -> Path:
    return demo.config.with_name('stego_vit-t8_demo.py')


def test_demo(tmp_path: Path, run, command, options) -> None:
    text = run(tmp_path, command('demo.py', '--seed', 4, options=options))
    summary = json.loads((tmp_path / 'work_dirs/demo/summary.json').read_text())
    # The demo draws them with the counts of all images, and nobody else does.
    assert not (tmp_path / 'work_dirs/demo/omh/plans.png').exists()
    assert summary['seed'] == 4 and summary['seconds'] > 0
    refitted = (('host_refit', {'probe'}), ('omh_refit', {'probe', 'level1'}))
    for name, heads in (('host', {'probe', 'linear'}), ('omh', {'probe', 'linear', 'level1'}), *refitted):
        assert set(summary[name]) == heads
        assert all(0 <= value <= 100 for scores in summary[name].values() for value in scores.values())
    rows = {row['protocol']['name']: row for row in summary['protocols']}
    assert list(rows) == [
        'mmseg', 'stego-128-no-crf-no-flip', 'stego-128-no-crf', 'stego-128-no-flip', 'hp-128', 'smooseg-128',
        'stego-128',
    ]  # fmt: skip
    assert all(name in text for name in rows)
    # Scenes have the protocols' size: the full image is the centre square.
    assert rows['mmseg']['scores'] == rows['stego-128-no-crf-no-flip']['scores'] != rows['hp-128']['scores']
    assert rows['mmseg']['scores']['level1/mIoU'] == pytest.approx(summary['omh']['level1']['mIoU'], abs=0.01)
    hierarchy = summary['hierarchy']
    assert 0 <= hierarchy['parent_agreement'] <= 1 and 0 < hierarchy['chance'] < 1
    assert f'{summary["omh"]["level1"]["mIoU"]:.1f}' in text
    for picture in summary['pictures']:
        assert picture in text
        with Image.open(tmp_path / picture) as image:
            assert min(image.size) > 200
    assert summary['page'] in text and (tmp_path / summary['page']).is_file()
    assert len(list((tmp_path / 'work_dirs/demo/report/labels').iterdir())) == 4


@pytest.mark.slow
def test_kmeans_floor(tmp_path: Path, run, command, host, options) -> None:
    words = command('analysis_tools/kmeans_baseline.py', host, '--seeds', 0, 1, options=options)
    text = run(tmp_path, words)
    scores = [float(value) for value in re.findall(r'seed \d: mIoU ([\d.]+)', text)]
    assert len(scores) == 2 and all(5 < score < 100 for score in scores)
    mean = float(re.search(r'^mIoU: ([\d.]+) \+- [\d.]+ over seeds \[0, 1\]', text, flags=re.MULTILINE)[1])
    assert mean == pytest.approx(sum(scores) / 2, abs=0.02)


@pytest.mark.slow
def test_feature_cosines(tmp_path: Path, run, command, host, options) -> None:
    run(tmp_path, command('prepare.py', 'neighbours', host, options=options))
    words = command('analysis_tools/feature_cosines.py', host, '--images', 8, options=options)
    rows = re.findall(r'^of .*?((?: +-?[\d.]+){5})$', run(tmp_path, words), flags=re.MULTILINE)
    table = [[float(value) for value in row.split()] for row in rows]
    assert len(table) == 3
    assert all(row == sorted(row) and -1 <= row[0] and row[-1] <= 1 for row in table)
    of_one_image, _, of_random_images = table
    assert of_one_image[2] > of_random_images[2]
