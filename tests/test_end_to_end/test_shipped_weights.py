"""``omh-test NAME`` and mmseg's own command score the weights that the package ships as the zoo says."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import reduce
from pathlib import Path

import mmseg
import pytest
import yaml

from omh_mmseg.shipped import TRAINED, checkpoint_path, config_path

REPOSITORY = Path(__file__).resolve().parents[2]
MMSEG_TEST = Path(mmseg.__file__).parent / '.mim' / 'tools' / 'test.py'
SCENES = {
    f'{loader}_dataloader.dataset.counts.{split}': count
    for loader in ('val', 'test')
    for split, count in dict(train=1, val=80).items()
}
"""Nothing is trained here; each split has random numbers of its own."""


def of_the_zoo(name: str) -> dict[str, float]:
    """Scores of a config's shipped weights, by the names that a test logs."""
    models = yaml.safe_load((REPOSITORY / 'configs' / 'metafiles' / 'stego.yml').read_text())['Models']
    (figures,) = (entry['Trained']['Figures'] for entry in models if entry['Name'] == name)
    names = ('Level 1', 'level1'), ('Probe', 'probe'), ('Linear', 'linear'), ('accuracy', 'aAcc'), (' ', '/')
    return {reduce(lambda key, pair: key.replace(*pair), names, key): value for key, value in figures.items()}


@pytest.mark.parametrize('name', TRAINED)
def test_scores_are_those_of_the_zoo(name: str, command: Callable, run: Callable, tmp_path: Path) -> None:
    expected = of_the_zoo(name)
    assert len(expected) == (6 if name.startswith('omh') else 4)
    words = ['test.py', name]
    if name == TRAINED[1] and MMSEG_TEST.is_file():
        words = [MMSEG_TEST, Path(config_path(name)).resolve(), Path(checkpoint_path(name)).resolve()]
    run(tmp_path, command(*words, '--work-dir', 'scores', options=SCENES))
    (path,) = (tmp_path / 'scores').glob('*/*.json')
    scores = json.loads(path.read_text())
    assert {key: scores[key] for key in expected} == pytest.approx(expected, abs=0.1)
