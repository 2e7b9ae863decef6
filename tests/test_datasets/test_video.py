"""Sequences of frames: moving scenes, folders and videos, and pairs of their frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from omh_mmseg.datasets.video import reader
from omh_mmseg.datasets.video.frame_flow import FrameFlow
from omh_mmseg.datasets.video.moving_picture import draw_moving_picture, layer_flow
from omh_mmseg.datasets.video.reader import VideoFrames
from omh_mmseg.datasets.video.sequences import frame_infos
from omh_mmseg.flow import visible, warp_labels
from omh_mmseg.registry import DATASETS

PIPELINE = [
    dict(type='LoadImageFromFile', _scope_='omh_mmseg'),
    dict(type='LoadOptionalAnnotations'),
    dict(type='PackSegInputs'),
]


def build(kind: str, **options):
    return DATASETS.build(dict(type=kind, pipeline=PIPELINE, **options))


@pytest.fixture(scope='module')
def scenes(tmp_path_factory) -> dict:
    root = str(tmp_path_factory.mktemp('moving') / 'scenes')
    return dict(data_root=root, sequences=dict(train=2, val=1), frames=4)


def write_video(path: Path, frames: int = 12, size: tuple[int, int] = (48, 64), codec: str = 'mp4v') -> Path:
    """A bright bar that moves 2 pixels per frame."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), 10, size[::-1])
    for number in range(frames):
        image = np.full((*size, 3), 60, np.uint8)
        image[:, 2 * number : 2 * number + 12] = 20 * number
        writer.write(image)
    writer.release()
    return path


def test_labels_and_flow_of_moving_scenes_fit_exactly():
    for index in range(3):
        drawn = draw_moving_picture(7, 'val', index, 4)
        again = draw_moving_picture(7, 'val', index, 4)
        assert np.array_equal(drawn.images, again.images)
        for now, then in ((0, 1), (3, 1)):
            flows = [
                torch.from_numpy(layer_flow(drawn.layers[one], drawn.velocities, other - one))[None]
                for one, other in ((now, then), (then, now))
            ]
            shown = visible(*flows)[0]
            parts = [torch.from_numpy(drawn.parts[frame]).long() for frame in (now, then)]
            assert shown.float().mean() > 0.5
            assert torch.equal(warp_labels(parts[1][None], flows[0])[0][shown], parts[0][shown])


def test_moving_scenes(scenes):
    dataset = build('MovingScenes', split='train', level='object', **scenes)
    assert len(dataset) == 8 and len(dataset.metainfo['classes']) == 12
    info = dataset.get_data_info(5)
    assert (info['sequence'], info['frame'], info['seconds']) == ('00001', 1, 0.1)
    flow = FrameFlow(dataset).between(5, 6)
    assert flow.shape == (3, 128, 128) and torch.equal(flow[:2], flow[:2].round())
    with pytest.raises(ValueError, match='two sequences'):
        dataset.exact_flow(3, 4)
    before = {path: path.stat().st_mtime_ns for path in Path(scenes['data_root']).rglob('*')}
    build('MovingScenes', split='val', **scenes)
    assert before == {path: path.stat().st_mtime_ns for path in Path(scenes['data_root']).rglob('*')}


def test_names_tell_sequences():
    camvid = ['0001TP_006690', '0001TP_006720', 'Seq05VD_f00030', '0001TP_006751', '0001TP_006840', 'a/b7']
    infos = frame_infos(camvid, fps=30)
    assert [info.sequence for info in infos] == ['0001TP', '0001TP', 'Seq05VD_f', '0001TP', '0001TP//1', 'a/b']
    assert [info.place for info in infos] == [0, 1, 0, 2, 0, 0] and infos[1].seconds == 224
    with pytest.raises(ValueError, match='frames are missing: 0001TP_006751 to 0001TP_006840'):
        frame_infos(camvid, missing='error')
    with pytest.raises(ValueError, match='names tell no sequence and frame.*drive'):
        frame_infos(['drive'])
    with pytest.raises(ValueError, match='both frame 3'):
        frame_infos(['a_3', 'a_03'])
    # Words before the number are of the sequence, and a folder may be called like the run after a hole.
    sides = frame_infos(['left0001', 'left0002', 'right0003', 'right0004'])
    assert [(info.sequence, info.place) for info in sides] == [('left', 0), ('left', 1), ('right', 0), ('right', 1)]
    holes = frame_infos(['a/1', 'a/2', 'a/9', 'a/10', 'a#1/1', 'a#1/2'])
    assert len({(info.sequence, info.place) for info in holes}) == 6


@pytest.mark.parametrize(
    ('pattern', 'match'),
    [
        ('(?P<sequence>.*)_.*', 'lacks the groups frame'),
        ('(', 'no regular expression'),
        ('(?P<sequence>.*)_(?P<frame>.*)', "its frame 'x'; both must be found, and a frame is a number"),
        ('(?P<sequence>b)?a_(?P<frame>.*)', 'its sequence is None'),
    ],
)
def test_patterns_that_tell_nothing(pattern, match):
    with pytest.raises(ValueError, match=match):
        frame_infos(['a_x'], pattern)


def test_a_gap_beyond_all_sequences(scenes):
    moving = build('MovingScenes', split='train', **scenes)
    far, further = (DATASETS.build(dict(type='TemporalPairs', dataset=moving, gap=gap)) for gap in (3, 10**9))
    assert far.partners == further.partners


def test_a_folder_of_frames(tmp_path):
    for name in ('a_1', 'a_2', 'a_3', 'b_1', 'c_5'):
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / f'{name}.png')
    options = dict(data_root=str(tmp_path), num_classes=2)
    assert [build('VideoFolder', stride=2, **options).get_data_info(item)['frame'] for item in (0, 1)] == [1, 3]
    dataset = build('VideoFolder', **options)
    pairs = DATASETS.build(dict(type='TemporalPairs', dataset=dataset, gap=2))
    assert pairs.partners == [2, 2, 0, 3, 4]  # b and c are alone
    item = pairs[0]
    assert sorted(item['inputs']) == ['anchor', 'later'] and item['data_samples'].frames_apart == 2
    assert item['data_samples'].flow_to_later.data.shape == (3, 4, 4)
    neighbours = DATASETS.build(dict(type='TemporalPairs', dataset=dataset, view='neighbour'))
    item = neighbours[0]
    assert sorted(item['inputs']) == ['anchor', 'neighbour'] and 'flow_to_later' not in item['data_samples']
    for refused, match in (
        (dict(dataset=dataset, view='neighbour', flow=dict(type='DISFlow')), 'reaches nothing'),
        (dict(dataset=dataset, view='next'), 'unknown'),
        (dict(dataset=build('FolderSegDataset', **options)), 'VideoFolder in place of'),
        (dict(dataset=build('VideoFolder', pattern=r'(?P<sequence>.*(?P<frame>\d))', **options)), 'no frame has'),
    ):
        with pytest.raises(ValueError, match=match):
            DATASETS.build(dict(type='TemporalPairs', **refused))


@pytest.mark.parametrize('step', [dict(type='RandomCrop', crop_size=(16, 16)), dict(type='RandomFlip', prob=0.01)])
def test_a_pipeline_that_draws_is_refused(tmp_path, step):
    for name in ('a_1', 'a_2'):
        pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'{name}.png')
    steps = [PIPELINE[0], step, PIPELINE[2]]
    dataset = DATASETS.build(dict(type='VideoFolder', data_root=str(tmp_path), num_classes=2, pipeline=steps))
    with pytest.raises(ValueError, match='draws at random'):
        DATASETS.build(dict(type='TemporalPairs', dataset=dataset))


def test_pairs_beside_neighbours(scenes):
    """STEGO's neighbour stays, and what is known exactly is the flow."""
    moving = build('MovingScenes', split='train', **scenes)
    pairs = DATASETS.build(dict(type='TemporalPairs', dataset=moving))
    flow = pairs[0]['data_samples'].flow_to_later.data
    assert torch.equal(flow, torch.nn.functional.avg_pool2d(FrameFlow(moving).between(0, 1), 8))
    assert pairs[0]['data_samples'].flow_to_later.data is flow  # remembered
    with_flow = DATASETS.build(dict(type='FramesWithFlow', dataset=moving))
    assert 'flow_to_before' not in with_flow[0]['data_samples']
    sample = with_flow[1]['data_samples']
    assert sample.seconds_passed == pytest.approx(0.1) and sample.flow_to_before.data.shape == (3, 128, 128)


def test_a_video(tmp_path):
    video = write_video(tmp_path / 'clip.mp4')
    frames = VideoFrames(video, stride=3)
    assert (frames.promised, frames.size, frames.frames_per_second) == (4, (48, 64), 10)
    listed = list(frames)
    assert len(listed) == 4 and np.abs(listed[2].astype(int) - frames.frame(2)).max() == 0
    dataset = build('VideoFolder', data_root=str(video), num_classes=3, stride=3)
    assert len(dataset) == 4 and dataset.get_data_info(2)['seconds'] == pytest.approx(0.6)
    item = dataset[2]
    assert item['inputs'].shape == (3, 48, 64) and item['data_samples'].img_path.endswith('clip.mp4/000006')
    assert np.array_equal(dataset.read_frame(2)[..., ::-1], item['inputs'].permute(1, 2, 0).numpy())
    folder = build('VideoFolder', data_root=str(tmp_path), num_classes=3)
    pairs = DATASETS.build(dict(type='TemporalPairs', dataset=folder))
    assert len(pairs) == 12 and pairs[4]['data_samples'].flow_to_later.data.shape == (3, 6, 8)


def test_a_video_that_opencv_cannot_decode(tmp_path, monkeypatch):
    """PyAV reads the same frames, forwards, from the middle and back."""
    pytest.importorskip('av', reason='PyAV comes with the extra video')
    video = write_video(tmp_path / 'clip.mp4')
    expected = list(VideoFrames(video, stride=3))
    monkeypatch.setattr(reader._MMCVFrames, 'get', lambda self, number: None)
    frames = VideoFrames(video, stride=3)
    assert isinstance(frames._frames, reader._AVFrames)
    assert (frames.promised, frames.size, frames.frames_per_second) == (4, (48, 64), 10)
    for order in (None, (0, 2, 1, 3)):
        got = list(frames) if order is None else [frames.frame(number) for number in order]
        assert len(got) == 4
        for number, frame in zip(order or range(4), got):
            # The two convert colours with another rounding.
            assert np.abs(expected[number].astype(int) - frame).max() <= 6
    (tmp_path / 'text.mp4').write_text('no video')
    with pytest.raises(OSError, match='no frame that can be decoded'):
        VideoFrames(tmp_path / 'text.mp4')


def test_videos_that_cannot_be_read(tmp_path):
    video = write_video(tmp_path / 'clip.avi', codec='MJPG')
    (tmp_path / 'empty.mp4').touch()
    (tmp_path / 'text.mp4').write_text('no video')
    with pytest.raises(FileNotFoundError, match='there is no video'):
        VideoFrames(tmp_path / 'absent.mp4')
    with pytest.raises(OSError, match='is empty'):
        VideoFrames(tmp_path / 'empty.mp4')
    with pytest.raises(OSError, match='no frame that can be decoded'):
        VideoFrames(tmp_path / 'text.mp4')
    cut = tmp_path / 'cut.avi'
    cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(OSError, match='broken|no frame'):
        list(VideoFrames(cut))
    with pytest.raises(ValueError, match='videos have no labels'):
        build('VideoFolder', data_root=str(video), num_classes=3, labels='required')


def test_a_count_that_is_guessed(tmp_path, monkeypatch):
    """Matroska holds no number of frames: what OpenCV guesses of the length of the sound is no promise."""
    write_video(tmp_path / 'clip.mkv')
    opened = reader._MMCVFrames._open

    def guessing(self):
        opened(self)
        self._reader._frame_cnt = 20

    monkeypatch.setattr(reader._MMCVFrames, '_open', guessing)
    frames = VideoFrames(tmp_path / 'clip.mkv', stride=2)
    assert frames.promised == 10 and not frames.counted and len(list(frames)) == frames.count() == 6


@pytest.mark.parametrize('more', [1, 3])
def test_a_header_that_promises_too_much(tmp_path, monkeypatch, more):
    """By a frame it is a rounding of the duration; items are the frames that there are."""
    write_video(tmp_path / 'clip.mp4')
    opened = reader._MMCVFrames._open

    def promising(self):
        opened(self)
        self._reader._frame_cnt = 12 + more

    monkeypatch.setattr(reader._MMCVFrames, '_open', promising)
    if more == 1:
        dataset = build('VideoFolder', data_root=str(tmp_path), num_classes=3)
        assert len(dataset) == 12 and dataset[11]['inputs'].shape == (3, 48, 64)
        return
    with pytest.raises(OSError, match='promises 15 frames, and the last of them cannot be decoded'):
        build('VideoFolder', data_root=str(tmp_path), num_classes=3)


def test_videos_of_one_stem_are_apart(tmp_path):
    for name, codec in (('clip.mp4', 'mp4v'), ('clip.avi', 'MJPG')):
        write_video(tmp_path / name, frames=3, codec=codec)
    pairs = DATASETS.build(
        dict(type='TemporalPairs', dataset=build('VideoFolder', data_root=str(tmp_path), num_classes=3))
    )
    assert pairs.partners == [1, 2, 1, 4, 5, 4]


def test_a_change_of_size(tmp_path):
    frames = VideoFrames(write_video(tmp_path / 'clip.mp4'))
    frames.size = (40, 64)
    with pytest.raises(ValueError, match='size changes within .*has 64 x 40 pixels and frame 0 has 64 x 48'):
        next(iter(frames))
