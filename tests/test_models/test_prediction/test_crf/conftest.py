"""The image and logits of docs/methods/test_vectors.md A.9, and photographs where there are any."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor


@pytest.fixture
def a9() -> tuple[Tensor, Tensor]:
    """BGR image (3, 48, 64) and log-probabilities (5, 48, 64)."""
    rows, columns = np.mgrid[:48, :64].astype(float)
    red, green = 120 + 80 * np.sin(columns / 9), 100 + 60 * np.cos(rows / 7)
    blue = 90 + 50 * np.sin((columns + rows) / 11)
    image = np.stack([blue, green, red]).astype(np.uint8)
    assert image.sum() == 968172
    index = np.arange(5 * 48 * 64, dtype=np.int64)
    noise = np.sin(0.37 * ((index * index + 3 * index) % 9973) + 0.2).astype(np.float32).reshape(5, 48, 64)
    cluster = np.arange(5)[:, None, None]
    waves = np.sin((cluster + 1) * columns / 17 + cluster / 2) * np.cos(rows / (9 + cluster))
    logits = torch.tensor((0.8 * noise + waves).astype(np.float32))
    return torch.from_numpy(image), torch.log_softmax(logits, 0)


@pytest.fixture
def photos(shared_dir) -> list[tuple[Tensor, Tensor]]:
    """Two photographs, 160 pixels high and wide, with soft log-probabilities (27, 160, 160) as a model's are."""
    paths = sorted(shared_dir.glob('data/msrc/images/val/*.jpg'))[:1]
    paths += sorted(shared_dir.glob('data/camvid/images/val/*.jpg'))[:1]
    torch.manual_seed(0)
    found = []
    for path in paths:
        with Image.open(path) as opened:
            image = opened.convert('RGB').resize((160, 160), Image.Resampling.NEAREST)
        pixels = torch.tensor(np.array(image)).permute(2, 0, 1)
        blurred = F.avg_pool2d(pixels[None].float() / 255 - 0.5, 8)
        code = F.conv2d(blurred, torch.randn(40, 3, 3, 3), padding=1).relu()
        code = F.normalize(F.interpolate(code, size=(160, 160), mode='bilinear', align_corners=False), dim=1)
        cosines = F.conv2d(code, F.normalize(torch.rand(27, 40), dim=1)[:, :, None, None])
        found.append((pixels.flip(0).contiguous(), torch.log_softmax(2 * cosines[0], 0)))
    assert found
    return found
