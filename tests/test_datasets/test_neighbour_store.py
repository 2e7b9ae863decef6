from __future__ import annotations

import json

import numpy as np
import pytest

from omh_mmseg.datasets.neighbours.store import PartialIndex, RowFile, discard_partial, partial_progress

FINGERPRINT = dict(items=5, images='abc')


def rows(count: int, columns: int = 3) -> np.ndarray:
    return np.arange(count * columns, dtype=np.float32).reshape(count, columns)


def test_rows_are_read_back(tmp_path):
    file = RowFile(tmp_path / 'a', 3, '<f4')
    file.append(rows(4))
    file.append(rows(2) + 100)
    assert file.shape == (6, 3)
    np.testing.assert_array_equal(file[3:5], [[9, 10, 11], [100, 101, 102]])
    np.testing.assert_array_equal(file[4:99], file[4:6])
    assert file[6:9].shape == (0, 3)
    with pytest.raises(ValueError, match='blocks of consecutive ones, got the step 2'):
        file[0:4:2]
    with pytest.raises(ValueError, match=r'takes rows of 3 values, got the shape \(2, 4\)'):
        file.append(rows(2, 4))
    assert file.sync() == 6
    file.close()


def test_what_was_not_counted_is_cut_off(tmp_path):
    file = RowFile(tmp_path / 'a', 3, '<f4')
    file.append(rows(4))
    file.close()
    with (tmp_path / 'a').open('ab') as raw:
        raw.write(b'half a row')
    file = RowFile(tmp_path / 'a', 3, '<f4', rows=3)
    file.append(rows(1) + 50)
    np.testing.assert_array_equal(file[0:9], [*rows(3), rows(1)[0] + 50])
    file.close()
    assert (tmp_path / 'a').stat().st_size == 4 * 12
    with pytest.raises(ValueError, match='holds 48 bytes, 5 rows of 12 bytes are expected'):
        RowFile(tmp_path / 'a', 3, '<f4', rows=5)


def test_folder_is_continued_and_deleted(tmp_path):
    index = tmp_path / 'deep' / 'index.npz'
    with PartialIndex(index, FINGERPRINT, 5) as partial:
        assert partial.features is None
        partial.start_features(3).append(rows(2))
    assert partial_progress(index, FINGERPRINT) == (2, 0)
    assert partial_progress(index, dict(items=5, images='other')) == (0, 0)
    with PartialIndex(index, FINGERPRINT, 5) as partial:
        np.testing.assert_array_equal(partial.features[0:9], rows(2))
        partial.start_features(3).append(rows(3))
        partial.start_neighbours(2, dict(chunk_size=4)).append(np.ones((4, 2), np.int32))
    with PartialIndex(index, FINGERPRINT, 5) as partial:
        assert len(partial.start_neighbours(2, dict(chunk_size=4))) == 4
        assert len(partial.start_neighbours(2, dict(chunk_size=3))) == 0
        assert len(partial.features) == 5
        partial.remove()
    assert list((tmp_path / 'deep').iterdir()) == []


def test_other_channels_begin_anew(tmp_path):
    with PartialIndex(tmp_path / 'index.npz', FINGERPRINT, 5) as partial:
        partial.start_features(3).append(rows(2))
    with PartialIndex(tmp_path / 'index.npz', FINGERPRINT, 5) as partial:
        assert len(partial.start_features(4)) == 0


@pytest.mark.parametrize('damage', ['truncated', 'absent', 'no manifest', 'odd manifest'])
def test_damaged_folders_begin_anew(tmp_path, damage):
    index = tmp_path / 'index.npz'
    with PartialIndex(index, FINGERPRINT, 5) as partial:
        partial.start_features(3).append(rows(2))
    features, manifest = (tmp_path / 'index.npz.partial' / name for name in ('features.f32', 'manifest.json'))
    if damage == 'truncated':
        features.write_bytes(features.read_bytes()[:-1])
    elif damage == 'absent':
        features.unlink()
    elif damage == 'no manifest':
        manifest.write_text('{"finger')
    else:
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | dict(features=3)))
    with PartialIndex(index, FINGERPRINT, 5) as partial:
        assert len(partial.start_features(3)) == 0
        partial.features.append(rows(1))
    assert partial_progress(index, FINGERPRINT) == (1, 0)


def test_one_process_at_a_time(tmp_path):
    index = tmp_path / 'index.npz'
    with PartialIndex(index, FINGERPRINT, 5):
        with pytest.raises(BlockingIOError, match='another process is making this neighbour index'):
            PartialIndex(index, FINGERPRINT, 5).__enter__()
        discard_partial(index)
        assert (tmp_path / 'index.npz.partial').is_dir()
    discard_partial(index)
    discard_partial(index)
    assert list(tmp_path.iterdir()) == []
