from __future__ import annotations

import pytest
import torch

from omh_mmseg.utils.devices import check_device, default_device


@pytest.mark.parametrize(('gpu', 'device'), [(True, 'cuda'), (False, 'cpu')])
def test_first_gpu_or_cpu(monkeypatch, gpu, device):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: gpu)
    monkeypatch.setattr(torch.backends.mps, 'is_available', lambda: True)
    assert default_device() == device


@pytest.mark.parametrize('device', ['cuda:99', 'nonsense'])
def test_absent_device(device):
    check_device('cpu')
    check_device(torch.device('cpu'))
    with pytest.raises(ValueError, match=f"device '{device}' is not available here .*; use cpu"):
        check_device(device)
