"""Warping by known flows, to 0.1 pixels, and what is hidden."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

import omh_mmseg  # noqa: F401
from omh_mmseg.flow import DISFlow, RAFTFlow, resize_flow, visible, warp, warp_labels
from omh_mmseg.flow.estimators import build_flow
from omh_mmseg.registry import TASK_UTILS

SIZE = (96, 128)


def pattern(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A picture without end, in 0..1, sampled at any place."""
    waves = [(0.09, 0.05, 0.3), (-0.06, 0.11, 1.1), (0.13, -0.12, 2.0), (0.02, 0.15, 0.4), (0.17, 0.03, 4.0)]
    return 0.5 + sum(np.sin(a * x + b * y + c) for a, b, c in waves) / 10


def zoomed() -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """A flow of a turning and growing picture, the frame, and the other one."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]].astype(float)
    matrix = 1.03 * np.array([[np.cos(0.02), -np.sin(0.02)], [np.sin(0.02), np.cos(0.02)]])
    centre = np.array([SIZE[1] / 2, SIZE[0] / 2])
    moved = np.stack([x - centre[0], y - centre[1]], -1) @ matrix.T + centre + (1.3, -0.7)
    flow = torch.from_numpy(moved - np.stack([x, y], -1)).permute(2, 0, 1).float()
    back = (np.stack([x, y], -1) - centre - (1.3, -0.7)) @ np.linalg.inv(matrix).T + centre
    return flow[None], pattern(x, y), pattern(back[..., 0], back[..., 1])


def test_warping_finds_each_place_to_a_tenth_of_a_pixel():
    flow, frame, other = zoomed()
    y, x = (torch.from_numpy(places).float() for places in np.mgrid[: SIZE[0], : SIZE[1]])
    found = warp(torch.stack([x, y])[None], flow)[0]
    wanted = torch.stack([x, y]) + flow[0]
    inner = (wanted[0] > 0) & (wanted[0] < SIZE[1] - 1) & (wanted[1] > 0) & (wanted[1] < SIZE[0] - 1)
    assert ((found - wanted).square().sum(0).sqrt()[inner]).max() < 0.1
    # What is left between the frame and the other one, warped, as a displacement.
    warped = warp(torch.from_numpy(other)[None, None].float(), flow)[0, 0].numpy()
    window = cv2.createHanningWindow((96, 64), cv2.CV_64F)
    cut = slice(16, 80), slice(16, 112)
    (dx, dy), _ = cv2.phaseCorrelate(frame[cut], warped[cut].astype(float), window)
    assert np.hypot(dx, dy) < 0.1
    (dx, dy), _ = cv2.phaseCorrelate(frame[cut], other[cut], window)
    assert np.hypot(dx, dy) > 1


def test_labels_and_sizes():
    labels = torch.arange(12).view(1, 3, 4)
    flow = torch.zeros(1, 2, 3, 4)
    flow[:, 0] = 1.4
    assert warp_labels(labels, flow)[0, 0].tolist() == [1, 2, 3, 3]
    doubled = resize_flow(flow, (6, 8))
    assert doubled.shape == (1, 2, 6, 8) and doubled[0, 0].unique().item() == pytest.approx(2.8)
    with pytest.raises(ValueError, match='one batch and size'):
        warp(torch.zeros(1, 2, 6, 8), flow)


def test_what_an_object_hides():
    """An object moves 4 pixels to the right over a still ground."""
    forward, backward = torch.zeros(1, 2, 20, 40), torch.zeros(1, 2, 20, 40)
    forward[:, 0, 5:15, 10:20], backward[:, 0, 5:15, 14:24] = 4, -4
    hidden = ~visible(forward, backward)[0]
    expected = torch.zeros(20, 40, dtype=torch.bool)
    expected[5:15, 20:24] = True
    assert torch.equal(hidden, expected)
    away = torch.full((1, 2, 4, 4), 10.0)
    assert not visible(away, -away).any()


def test_dis():
    y, x = np.mgrid[:96, :128].astype(float)
    grey = [(255 * pattern(x - dx, y - dy)).astype(np.uint8) for dx, dy in ((0, 0), (3, -2))]
    frames = [np.repeat(image[..., None], 3, 2) for image in grey]
    flow = build_flow(None)(*frames)
    assert flow.shape == (2, 96, 128) and flow.dtype == np.float32
    assert np.median(np.abs(flow[:, 20:76, 20:108] - np.array([3, -2])[:, None, None])) < 0.3
    with pytest.raises(ValueError, match='two sizes'):
        DISFlow()(frames[0], frames[1][:50])
    with pytest.raises(ValueError, match='too small'):
        DISFlow()(frames[0][:8], frames[1][:8])
    with pytest.raises(ValueError, match='preset'):
        DISFlow('slow')


def test_raft_downloads_nothing(tmp_path):
    with pytest.raises(FileNotFoundError, match="type='DISFlow'"):
        RAFTFlow(tmp_path / 'raft.pth')
    torch.save({'x': torch.zeros(1)}, tmp_path / 'raft.pth')
    with pytest.raises(ValueError, match='no weights of raft_small'):
        TASK_UTILS.build(dict(type='RAFTFlow', weights=str(tmp_path / 'raft.pth')))
    (tmp_path / 'clip.mp4').write_bytes(b'no torch file')
    with pytest.raises(ValueError, match=r'clip.mp4 (is damaged|holds more than)'):
        RAFTFlow(tmp_path / 'clip.mp4')


@pytest.mark.slow
def test_raft_runs(tmp_path):
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    torch.save(raft_small(weights=None).state_dict(), tmp_path / 'raft.pth')
    frame = np.random.default_rng(0).integers(0, 256, (130, 140, 3), dtype=np.uint8)
    assert RAFTFlow(tmp_path / 'raft.pth', num_updates=2)(frame, frame).shape == (2, 130, 140)
