from __future__ import annotations

import pytest
import torch

from omh_mmseg.devices import default_device


@pytest.mark.parametrize(('gpu', 'device'), [(True, 'cuda'), (False, 'cpu')])
def test_first_gpu_or_cpu(monkeypatch, gpu, device):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
    assert default_device() == device
