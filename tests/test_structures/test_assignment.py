"""Assignments as files: round trip and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from omh_mmseg.structures.assignment import read_assignment, write_assignment


def test_round_trip(tmp_path: Path) -> None:
    path = write_assignment(tmp_path / 'a' / 'b.json', dict(pred_sem_seg=np.array([2, -1, 0])), split='train')
    assert json.loads(path.read_text())['split'] == 'train'
    read = read_assignment(path)
    assert list(read) == ['pred_sem_seg'] and read['pred_sem_seg'].dtype == np.int64
    assert read['pred_sem_seg'].tolist() == [2, -1, 0]


def test_mapping_and_bare_file(tmp_path: Path) -> None:
    assert read_assignment(dict(x=[1, 0]))['x'].tolist() == [1, 0]
    (tmp_path / 'a.json').write_text('{"x": [1, 0]}')
    assert read_assignment(str(tmp_path / 'a.json'))['x'].tolist() == [1, 0]


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='absent.json; python tools/analysis_tools/fit_assignment.py'):
        read_assignment(tmp_path / 'absent.json')


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{', 'a.json is not JSON'),
        ('[1, 2]', 'must map fields'),
        ('{}', 'must map fields'),
        ('{"x": [0.5]}', r'has \[0.5\] for x'),
        ('{"x": [-2]}', r'has \[-2\] for x'),
        ('{"x": []}', r'has \[\] for x'),
        ('{"x": [[1], [2, 3]]}', 'for x'),
        ('{"x": 3}', 'has 3 for x'),
    ],
)
def test_no_assignment(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / 'a.json').write_text(text)
    with pytest.raises(ValueError, match=message):
        read_assignment(tmp_path / 'a.json')
