"""Segmenting a video: files, smoothing, going on after an end, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from PIL import Image

from omh_mmseg.apis import predict_video
from omh_mmseg.apis.video_state import VideoState
from omh_mmseg.commands.predict import build_parser
from omh_mmseg.commands.predict import run as run_command
from omh_mmseg.models.prediction.code_smoothing import CodeSmoother

FRAMES = 7


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A textured ground that moves 3 pixels per frame to the left."""
    ground = np.random.default_rng(0).integers(0, 256, (12, 24, 3), dtype=np.uint8)
    ground = cv2.resize(ground, (192, 96), interpolation=cv2.INTER_CUBIC)
    writer = cv2.VideoWriter(str(tmp_path / 'clip.mp4'), cv2.VideoWriter.fourcc(*'mp4v'), 10, (128, 96))
    for number in range(FRAMES):
        writer.write(np.ascontiguousarray(ground[:, 3 * number : 3 * number + 128]))
    writer.release()
    return tmp_path / 'clip.mp4'


def mask(out: Path, number: int, head: str = 'level2') -> np.ndarray:
    return np.array(Image.open(out / 'clusters' / head / f'{number:06d}.png'))


def test_everything_is_written(inferencer, clip, tmp_path):
    run, out = inferencer(), tmp_path / 'out'
    summary = predict_video(run, clip, out, overlay='level2', progress=False)
    kinds = dict(clusters=list(run.heads), merged=['level2', 'level3'], classes=['probe', 'linear', 'level1'])
    expected = {f'{kind}/{head}/{n:06d}.png' for kind, heads in kinds.items() for head in heads for n in range(FRAMES)}
    files = {str(path.relative_to(out)) for path in out.rglob('*') if path.is_file()}
    assert files == expected | {'overlay.mp4', 'summary.json'}
    assert (summary['frames'], summary['height'], summary['width']) == (FRAMES, 96, 128)
    assert summary['frames_per_second'] > 0 and summary['forward_per_second'] > summary['frames_per_second']
    assert sum(summary['pixels']['level2'].values()) == FRAMES * 96 * 128
    overlay = cv2.VideoCapture(str(out / 'overlay.mp4'))
    assert overlay.get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES and overlay.get(cv2.CAP_PROP_FPS) == 10
    frame = cv2.VideoCapture(str(clip)).read()[1]
    assert np.array_equal(mask(out, 0), run(frame).clusters['level2'])
    # Once more, nothing is done; with other settings it is refused.
    (out / 'overlay.mp4').unlink()
    assert predict_video(run, clip, out, overlay='level2', progress=False)['frames'] == FRAMES
    assert not (out / 'overlay.mp4').exists()
    with pytest.raises(ValueError, match='other settings: .*smoothing was 0.0 and is 0.5 now'):
        predict_video(run, clip, out, overlay='level2', smoothing=0.5, progress=False)


def test_masks_that_were_deleted_are_made_again(inferencer, clip, tmp_path):
    run, out = inferencer(), tmp_path / 'out'
    predict_video(run, clip, out, progress=False)
    (out / 'clusters' / 'level2' / '000003.png').unlink()
    predict_video(run, clip, out, progress=False)
    assert len(list((out / 'clusters' / 'level2').iterdir())) == FRAMES


def test_goes_on_after_an_end(inferencer, clip, tmp_path, monkeypatch):
    """A run that ends in the middle gives, continued, the masks of one that does not."""
    monkeypatch.setattr('omh_mmseg.apis.video_state.INTERVAL', 3)
    run, whole, parts = inferencer(), tmp_path / 'whole', tmp_path / 'parts'
    predict_video(run, clip, whole, smoothing=0.7, progress=False)
    added = VideoState.add

    def ends(state, pixels, smoother):
        added(state, pixels, smoother)
        if state.frames == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(VideoState, 'add', ends)
        with pytest.raises(KeyboardInterrupt):
            predict_video(run, clip, parts, smoothing=0.7, progress=False)
    assert json.loads((parts / 'progress' / 'state.json').read_text())['frames'] == 3
    segmented = []
    examine = type(run).examine
    monkeypatch.setattr(type(run), 'examine', lambda *args: segmented.append(1) or examine(*args))
    again = predict_video(run, clip, parts, smoothing=0.7, progress=False)
    assert len(segmented) == 4 and again['frames'] == FRAMES and not (parts / 'progress').exists()
    assert all(np.array_equal(mask(whole, n, head), mask(parts, n, head)) for n in range(FRAMES) for head in run.heads)
    summary = json.loads((whole / 'summary.json').read_text())
    assert again['pixels'] == summary['pixels']


def test_smoothing_follows_the_flow():
    """Codes that move with the picture stay as they are, what comes into view does too."""
    def flow(frame, other):
        moved = np.zeros((2, 32, 32), np.float32)
        moved[0] = 8.0 * (int(other[0, 0, 0]) - int(frame[0, 0, 0]))  # 8 pixels to the right per frame
        return moved

    smoother = CodeSmoother(0.5, flow)
    code = torch.arange(16.0).view(1, 1, 4, 4)
    frames = [np.full((32, 32, 3), number, np.uint8) for number in range(2)]
    assert torch.equal(smoother(code, frames[0], (32, 32)), code)
    moved = torch.roll(code, 1, dims=3)
    moved[..., 0] = 100.0
    noisy = moved + 2.0
    result = smoother(noisy, frames[1], (32, 32))
    assert torch.allclose(result[..., 2:], moved[..., 2:] + 1)
    assert torch.equal(result[..., 0], noisy[..., 0])


def test_what_is_refused(inferencer, trained_demo, clip, tmp_path):
    run = inferencer()
    with pytest.raises(ValueError, match="no head 'level9'"):
        predict_video(run, clip, tmp_path / 'out', overlay='level9')
    with pytest.raises(ValueError, match='reaches nothing without smoothing'):
        predict_video(run, clip, tmp_path / 'out', flow=dict(type='DISFlow'))
    with pytest.raises(ValueError, match='smoothing must be'):
        predict_video(run, clip, tmp_path / 'out', smoothing=1.0)
    (tmp_path / 'broken.mp4').write_bytes(clip.read_bytes()[:200])
    with pytest.raises(OSError, match='no frame that can be decoded'):
        predict_video(run, tmp_path / 'broken.mp4', tmp_path / 'out')
    given = [str(trained_demo.config), str(trained_demo.matched)]
    for options, match in (
        ([str(clip), '--grid', 'a.png'], '--grid would reach nothing: there is no image'),
        ([str(tmp_path), '--smoothing', '0.5'], '--smoothing would reach nothing: there is no video'),
        ([str(tmp_path), '--grid-rows', '2', '--grid-photos'], '--grid-rows, --grid-photos would reach nothing'),
        ([str(tmp_path), '--overlay', 'none', '--opacity', '0.5'], '--opacity would reach nothing: there are no over'),
    ):
        with pytest.raises(ValueError, match=match):
            run_command(build_parser().parse_args([*given, *options]))


def test_a_single_frame(inferencer, clip, tmp_path, monkeypatch):
    """It is segmented as an image is, and the log says that there is no more."""
    said = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'warning', said.append)
    frame = cv2.VideoCapture(str(clip)).read()[1]
    one = str(tmp_path / 'one.avi')
    writer = cv2.VideoWriter(one, cv2.VideoWriter.fourcc(*'MJPG'), 10, (128, 96))
    writer.write(frame)
    writer.release()
    run = inferencer()
    summary = predict_video(run, one, tmp_path / 'out', overlay='level2', smoothing=0.5, progress=False)
    assert [text for text in said if 'single frame' in text]
    assert summary['frames'] == 1 and (tmp_path / 'out' / 'overlay.mp4').is_file()
    assert np.array_equal(mask(tmp_path / 'out', 0), run(cv2.VideoCapture(one).read()[1]).clusters['level2'])


def test_command(trained_demo, clip, tmp_path, capsys):
    given = [str(trained_demo.config), str(trained_demo.matched), str(clip)]
    options = ['--out-dir', str(tmp_path / 'out'), '--stride', '3', '--smoothing', '0.5', '--overlay', 'level1']
    assert run_command(build_parser().parse_args([*given, *options, '--device', 'cpu'])) == 0
    assert 'clip.mp4: 3 frames' in capsys.readouterr().out
    assert (tmp_path / 'out' / 'clip' / 'overlay.mp4').is_file()


def test_several_videos(trained_demo, clip, tmp_path, capsys):
    """Those of one stem have folders of their own; one that is broken is named, and the others go on."""
    given = [str(trained_demo.config), str(trained_demo.matched)]
    (tmp_path / 'broken.mp4').write_bytes(b'')
    other = tmp_path / 'clip.m4v'
    other.write_bytes(clip.read_bytes())
    videos = [str(path) for path in (tmp_path / 'broken.mp4', clip, other)]
    options = ['--out-dir', str(tmp_path / 'out'), '--stride', '4', '--overlay', 'none', '--device', 'cpu']
    assert run_command(build_parser().parse_args([*given, *videos, *options])) == 1
    assert f'not segmented: the video {videos[0]} is empty' in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['broken', 'clip.m4v', 'clip.mp4'][1:]
    again = tmp_path / 'again' / 'clip.mp4'
    again.parent.mkdir()
    again.write_bytes(clip.read_bytes())
    for paths, kind, match in (
        ([str(clip), str(again)], ValueError, 'several videos are called clip.mp4'),
        ([str(tmp_path / 'clp.mp4'), '--smoothing', '0.5'], FileNotFoundError, 'there is no video .*clp.mp4'),
        ([str(tmp_path / 'again')], FileNotFoundError, 'Videos are named one by one: .*clip.mp4'),
    ):
        with pytest.raises(kind, match=match):
            run_command(build_parser().parse_args([*given, *paths, '--out-dir', str(tmp_path / 'none')]))


@pytest.mark.slow
def test_memory_does_not_grow(inferencer, tmp_path, monkeypatch):
    """300 frames of 480 x 854 pixels: after 300 the process holds what it held after 60, up to 64 MiB.

    Frames that were kept would be 280 MiB.
    """
    status = Path('/proc/self/status')
    if not status.is_file():
        pytest.skip('no /proc, which tells the memory of a process')
    writer = cv2.VideoWriter(str(tmp_path / 'long.mp4'), cv2.VideoWriter.fourcc(*'mp4v'), 25, (854, 480))
    ground = cv2.resize(np.random.default_rng(0).integers(0, 256, (30, 80, 3), dtype=np.uint8), (1500, 480))
    for number in range(300):
        writer.write(np.ascontiguousarray(ground[:, 2 * number : 2 * number + 854]))
    writer.release()
    held = {}
    added = VideoState.add

    def add(state, pixels, smoother):
        added(state, pixels, smoother)
        (line,) = (line for line in status.read_text().splitlines() if line.startswith('VmRSS'))
        held[state.frames] = int(line.split()[1]) / 1024

    monkeypatch.setattr(VideoState, 'add', add)
    run = inferencer(levels=[1])
    summary = predict_video(run, tmp_path / 'long.mp4', tmp_path / 'out', smoothing=0.5, progress=False)
    print({frames: round(held[frames], 1) for frames in (1, 60, 150, 300)})
    print({name: summary[name] for name in ('frames_per_second', 'forward_per_second')})
    assert summary['frames'] == 300 and held[300] - held[60] < 64
