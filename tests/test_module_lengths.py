"""Modules stay short enough to be read in one sitting."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
HEAD = 'omh_mmseg/models/omh/head.py'


def lines_of(file: Path) -> int:
    return len(file.read_text().splitlines())


def test_no_module_has_over_400_lines() -> None:
    files = (file for file in (REPOSITORY / 'omh_mmseg').rglob('*.py') if '.mim' not in file.parts)
    lengths = {str(file.relative_to(REPOSITORY)): lines_of(file) for file in files}
    assert HEAD in lengths
    assert {path: lines for path, lines in lengths.items() if lines > 400} == {}


def test_omh_head_has_at_most_200_lines() -> None:
    assert lines_of(REPOSITORY / HEAD) <= 200
