"""The README's commands, word by word, one after the other in one directory; with fewer steps and no download."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from omh_mmseg.datasets.demo_scenes import draw_examples

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / 'README.md').read_text()
FEW = {'train_cfg.max_iters': 3, 'train_cfg.val_interval': 3}
UNTRAINED = {'model.backbone.checkpoint': None}
SCENES = {
    f'{loader}_dataloader.dataset{inner}.counts.{split}': count
    for loader, inner in (('train', '.dataset'), ('val', ''), ('test', ''))
    for split, count in dict(train=16, val=4).items()
}
"""Of the demo."""


def commands_of(title: str) -> list[list[str]]:
    """Words of every ``omh-*`` command of a section."""
    section = README.split(f'\n## {title}\n')[1].split('\n## ')[0]
    blocks = re.findall(r'^```bash\n(.*?)^```', section, re.DOTALL | re.MULTILINE)
    lines = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    return [words for words in lines if words and words[0].startswith('omh-')]


@pytest.fixture
def run_command(command: Callable, run: Callable, tmp_path: Path) -> Callable[..., str]:
    """Run the words of a command of the README, and ``options`` in addition; what it printed."""

    def call(words: list[str], **options: object) -> str:
        tool = f'{words[0].removeprefix("omh-")}.py'
        more = [f'{key}={value}' for key, value in options.items()]
        marked = [] if not more or '--cfg-options' in words else ['--cfg-options']
        return run(tmp_path, [*command(tool, *words[1:]), *marked, *more])

    return call


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos as the README has them: labels beside them, a file that is none."""
    draw_examples(tmp_path / 'photos' / 'images', 12)
    (tmp_path / 'photos' / 'labels').mkdir()
    for image in (tmp_path / 'photos' / 'images').iterdir():
        labels = np.zeros(Image.open(image).size[::-1], np.uint8)
        Image.fromarray(labels).save(tmp_path / 'photos' / 'labels' / image.name)
    (tmp_path / 'photos' / 'notes.txt').write_text('none')
    return tmp_path / 'photos'


def test_your_own_photos(run_command: Callable, photos: Path, tmp_path: Path) -> None:
    train, explore, predict = commands_of('Your own photos')
    log = run_command(train, **FEW, **UNTRAINED)
    assert 'done; the run is in work_dirs/photos. Masks: ' in log
    told = '12 left out, labels of what is in images'
    assert told in run_command(explore) and (tmp_path / 'report/index.html').is_file()
    log = run_command(predict)
    assert told in log and '12 images in ' in log and (tmp_path / 'levels.png').is_file()
    assert len(list((tmp_path / 'predictions/overlays/images').iterdir())) == 12


@pytest.mark.slow
def test_the_rest(run_command: Callable, photos: Path, tmp_path: Path) -> None:
    run_command(commands_of('Your own photos')[0], **FEW, **UNTRAINED)
    writer = cv2.VideoWriter(str(tmp_path / 'clip.mp4'), cv2.VideoWriter_fourcc(*'mp4v'), 10, (96, 64))
    for shade in range(0, 250, 50):
        writer.write(np.full((64, 96, 3), shade, np.uint8))
    writer.release()
    (words,) = commands_of('Video')
    assert '5 frames' in run_command(words) and (tmp_path / 'predictions/clip/overlay.mp4').is_file()
    blocks = re.findall(r'^```python\n(.*?)^```', README, re.DOTALL | re.MULTILINE)
    (tmp_path / 'mine.py').write_text(blocks[0])
    (words,) = commands_of('Another backbone')
    assert 'done; the run is in work_dirs/mine' in run_command(words, **FEW, **UNTRAINED)
    for words in commands_of('OMH on and off'):
        assert 'done; the run is in' in run_command(words, **FEW, **SCENES)
    prepare, train, test = commands_of('Data sets')
    (tmp_path / 'downloads').mkdir()
    missing = 'missing: images of train2017', 'data', 'work_dirs/omh_stego_vit-s8_coco'
    for words, missed in zip((prepare, train, test), missing):
        words = [word.replace('~', str(tmp_path)) for word in words]
        with pytest.raises(AssertionError, match=f'ended with 1:(.|\\n)*{missed}'):
            run_command(words)


def test_every_section_with_commands_is_run() -> None:
    known = {'Your own photos', 'Video', 'Another backbone', 'OMH on and off', 'Data sets'}
    titles = re.findall(r'^## (.+)$', README, re.MULTILINE)
    assert {title for title in titles if commands_of(title)} == known
