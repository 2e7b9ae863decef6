"""A checkpoint is data: whatever reads one refuses what could run code, and says so in one line."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, load_checkpoint

from omh_mmseg.engine.hooks.assignment_hook import store_assignment
from omh_mmseg.models.prediction import ClusterAssignment

LEGACY = dict(_use_new_zipfile_serialization=False)


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.mkdir, (str(self.trace),)


def honest() -> dict[str, Any]:
    """Like mmengine's: weights, optimiser, message hub with a history and numpy numbers."""
    history = HistoryBuffer([0.5, np.float64(0.25)], [1, 1])
    return dict(
        meta=dict(iter=3, cfg='model = dict()', seed=np.int64(1)),
        state_dict=OrderedDict(weight=torch.ones(2)),
        optimizer=dict(state={0: dict(step=torch.tensor(3.0))}, param_groups=[dict(lr=0.1, betas=(0.9, 0.999))]),
        message_hub=dict(log_scalars={'train/loss': history}, runtime_info=dict(iter=3, best=np.float32(2.0))),
    )


def poisoned(place: str, trace: Path) -> dict[str, Any]:
    content = honest()
    payload = Payload(trace)
    if place == 'array':
        content['meta']['array'] = np.array([payload], dtype=object)
    elif place == 'top':
        content['extra'] = payload
    else:
        content[place]['extra'] = payload
    return content


def save(path: Path, content: Any, form: str) -> None:
    if form == 'plain':
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, **(LEGACY if form == 'legacy' else {}))


READERS: dict[str, Callable[[Path], Any]] = {
    'mmengine': lambda path: CheckpointLoader.load_checkpoint(str(path), map_location='cpu'),
    'into a model': lambda path: load_checkpoint(torch.nn.Linear(2, 1), str(path)),
    'assignments': lambda path: store_assignment(path, ClusterAssignment(dict(pred_sem_seg=2), None)),
}


@pytest.mark.parametrize('form', ['zip', 'legacy', 'plain'])
@pytest.mark.parametrize('place', ['top', 'state_dict', 'meta', 'optimizer', 'message_hub', 'array'])
@pytest.mark.parametrize('reader', READERS)
def test_code_is_not_run(tmp_path, reader, place, form):
    path, trace = tmp_path / 'model.pth', tmp_path / 'trace'
    save(path, poisoned(place, trace), form)
    with pytest.raises(ValueError) as error:
        READERS[reader](path)
    assert not trace.exists()
    text = str(error.value)
    assert str(path) in text and '\n' not in text and ('OMH_TRUST=1' in text or form == 'plain')


@pytest.mark.parametrize('form', ['zip', 'legacy'])
def test_honest_files_load(tmp_path, form):
    path = tmp_path / 'model.pth'
    save(path, honest(), form)
    content = READERS['mmengine'](path)
    assert content['message_hub']['log_scalars']['train/loss'].current() == 0.25
    assert content['optimizer']['param_groups'][0]['lr'] == 0.1
    assert not os.environ.get('TORCH_FORCE_WEIGHTS_ONLY_LOAD')


def test_trust_reads_the_file_as_it_is(tmp_path, monkeypatch):
    path, trace = tmp_path / 'model.pth', tmp_path / 'trace'
    save(path, poisoned('meta', trace), 'zip')
    monkeypatch.setenv('OMH_TRUST', '1')
    READERS['mmengine'](path)
    assert trace.is_dir()


@pytest.mark.parametrize('content', [b'', b'\x00' * 5000, b'<html>not found</html>', 'cut'], ids=str)
def test_broken_files_are_named(tmp_path, content):
    path = tmp_path / 'model.pth'
    if content == 'cut':
        torch.save(honest(), path)
        content = path.read_bytes()[:600]
    path.write_bytes(content)
    with pytest.raises(ValueError, match='damaged') as error:
        READERS['mmengine'](path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)
