"""The notebook holds no outputs, and runs from its first cell to its last."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOK = REPOSITORY / 'notebooks' / 'walk_through.ipynb'


def test_outputs_are_stripped() -> None:
    cells = json.loads(NOTEBOOK.read_text())['cells']
    code = [cell for cell in cells if cell['cell_type'] == 'code']
    assert len(code) >= 5 and not any(cell['outputs'] or cell['execution_count'] for cell in code)


@pytest.mark.slow
def test_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip('nbformat'), pytest.importorskip('nbclient')
    pytest.importorskip('ipykernel')
    monkeypatch.setenv('PYTHONPATH', str(REPOSITORY))
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    begin = time.monotonic()
    nbclient.NotebookClient(notebook, timeout=600, resources=dict(metadata=dict(path=str(tmp_path)))).execute()
    print(f'{time.monotonic() - begin:.0f} seconds')
    outputs = [output for cell in notebook.cells if cell.cell_type == 'code' for output in cell.outputs]
    assert sum('image/png' in output.get('data', {}) for output in outputs) == 4
    assert "'level3'" in outputs[-1]['data']['text/plain'] and 'ResNet' in outputs[-1]['data']['text/plain']
