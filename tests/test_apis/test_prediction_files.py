from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.logging import MMLogger
from PIL import Image

from omh_mmseg.apis import find_images, list_folder, predict_images
from omh_mmseg.apis.prediction_files import head_palettes


def mask(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file()}


def test_everything_is_written(inferencer, folder, tmp_path):
    run, out = inferencer(), tmp_path / 'out'
    summary = predict_images(run, find_images(folder), out, folder, overlay='level2')
    names = ['a', 'b', 'more/c']
    kinds = dict(clusters=list(run.heads), merged=['level2', 'level3'], classes=['probe', 'linear', 'level1'])
    expected = {f'{kind}/{head}/{name}.png' for kind, heads in kinds.items() for head in heads for name in names}
    assert files(out) == expected | {f'overlays/{name}.jpg' for name in names} | {'summary.json'}
    assert json.loads((out / 'summary.json').read_text()) == json.loads(json.dumps(summary, default=str))
    result = run(folder / 'more/c.png')
    for kind in kinds:
        for head, labels in getattr(result, kind).items():
            stored = mask(out / kind / head / 'more/c.png')
            assert stored.dtype == np.uint8 and np.array_equal(stored, np.where(labels < 0, 255, labels))


def test_summary(inferencer, folder, tmp_path):
    summary = predict_images(inferencer(), find_images(folder), tmp_path / 'out', folder)
    assert summary['classes'][2] == 'sky' and summary['failed'] == []
    heads = summary['heads']
    assert heads['probe']['classes'] == [5, 4, 3, 2, 1, -1] and heads['level2']['classes'] is None
    assert heads['level3']['clusters'] == len(heads['level3']['colours']) == len(heads['level3']['ancestors']) == 24
    assert summary['protocol']['name'] == 'config' and 'ResizeShortSide(128)' in summary['protocol']['pipeline']
    for entry in summary['images']:
        for head in heads:
            stored = mask(tmp_path / 'out' / entry['masks']['clusters'][head])
            counted = {int(cluster): pixels for cluster, pixels in entry['pixels'][head].items()}
            assert counted == dict(zip(*map(np.ndarray.tolist, np.unique(stored, return_counts=True))))
            assert sum(counted.values()) == entry['height'] * entry['width']


def test_no_classes_of_a_probe_that_never_saw_a_label(inferencer, folder, tmp_path):
    run = inferencer('unlabelled')
    assert 'linear' not in run.heads and run.model.linear_probe.unlabelled
    summary = predict_images(run, find_images(folder), tmp_path / 'out', folder)
    assert 'linear' not in summary['heads']
    assert {path.parent.name for path in (tmp_path / 'out').rglob('*.png')} == {
        'probe', 'level1', 'level2', 'level3', 'more'
    }  # fmt: skip
    with pytest.raises(ValueError, match="there is no head 'linear' to overlay"):
        predict_images(run, find_images(folder), tmp_path / 'out', folder, overlay='linear')


def test_masks_have_the_colours_of_the_overlays(inferencer, folder, tmp_path):
    run = inferencer()
    predict_images(run, [str(folder / 'a.png')], tmp_path / 'out')
    palettes = head_palettes(run)
    for kind, head, palette in (
        ('clusters', 'probe', palettes['probe']), ('clusters', 'level3', palettes['level3']),
        ('merged', 'level3', palettes['level1']), ('classes', 'level1', run.model.dataset_meta['palette']),
    ):  # fmt: skip
        with Image.open(tmp_path / 'out' / kind / head / 'a.png') as picture:
            assert picture.mode == 'P'
            assert np.array_equal(np.array(picture.convert('RGB')), np.asarray(palette)[np.array(picture)])


def test_summary_names_the_clusters(inferencer, folder, tmp_path):
    heads = predict_images(inferencer(), [str(folder / 'a.png')], tmp_path / 'out')['heads']
    assert heads['probe']['names'] == ['person', 'vehicle', 'building', 'sky', 'plant', None]
    assert heads['level2']['names'] == [None] * 12


def test_overlay_blends_the_colours_of_the_classes(inferencer, folder, tmp_path):
    run = inferencer()
    predict_images(run, [str(folder / 'a.png')], tmp_path / 'out', opacity=1.0)
    clusters = mask(tmp_path / 'out/clusters/probe/a.png')
    palette = head_palettes(run)['probe']
    assert palette[0].tolist() == run.model.dataset_meta['palette'][5]
    painted = np.array(Image.open(tmp_path / 'out/overlays/a.jpg')).astype(int)
    assert np.abs(painted - palette[clusters]).mean() < 12  # JPEG
    predict_images(run, [str(folder / 'a.png')], tmp_path / 'faint', opacity=0.01)
    original = np.array(Image.open(folder / 'a.png')).astype(int)
    assert np.abs(np.array(Image.open(tmp_path / 'faint/overlays/a.jpg')).astype(int) - original).mean() < 5


def test_overlay_fits_a_cropped_prediction(inferencer, folder, tmp_path):
    run = inferencer(protocol='stego-64-no-crf')
    predict_images(run, [str(folder / 'a.png')], tmp_path / 'out', opacity=0.01)
    assert np.array(Image.open(tmp_path / 'out/overlays/a.jpg')).shape == (64, 64, 3)


def test_no_overlays(inferencer, folder, tmp_path):
    summary = predict_images(inferencer(levels=[]), [str(folder / 'a.png')], tmp_path / 'out', overlay=None)
    assert 'overlay' not in summary['images'][0] and not (tmp_path / 'out/overlays').exists()


def test_colours_without_classes(inferencer):
    palettes = head_palettes(inferencer('checkpoint'))
    assert {head: len(palette) for head, palette in palettes.items()} == dict(
        probe=6, linear=6, level1=6, level2=12, level3=24
    )
    assert len({tuple(colour) for colour in palettes['probe'].tolist()}) == 6


def test_unreadable_images_are_reported_and_the_rest_goes_on(inferencer, folder, tmp_path):
    (folder / 'b.jpg').write_bytes(b'nothing')
    summary = predict_images(inferencer(), find_images(folder), tmp_path / 'out', folder)
    assert [os.path.basename(entry['image']) for entry in summary['images']] == ['a.png', 'c.png']
    (failure,) = summary['failed']
    assert failure['image'].endswith('b.jpg') and 'cannot be read' in failure['error']


def test_interruption_leaves_no_summary_and_no_parts(inferencer, folder, tmp_path, monkeypatch):
    run = inferencer()

    def interrupted(*_) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, '_predict', interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_images(run, find_images(folder), tmp_path / 'out', folder)
    assert files(tmp_path / 'out') == set()


def test_many_clusters_take_sixteen_bits(inferencer, folder, tmp_path, monkeypatch):
    run = inferencer()
    monkeypatch.setattr(type(run), 'heads', property(lambda self: dict(level3=300)))
    monkeypatch.setattr('omh_mmseg.apis.prediction_files.head_palettes', lambda _: dict(level3=np.zeros((300, 3))))
    predict_images(run, [str(folder / 'a.png')], tmp_path / 'out', overlay=None)
    assert mask(tmp_path / 'out/clusters/level3/a.png').dtype == np.uint16


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(overlay='level4'), "there is no head 'level4' to overlay; the model has probe, linear, level1"),
        (dict(opacity=0), r'opacity must lie in \(0, 1\]; got 0'),
        (dict(root='/elsewhere'), 'is not below /elsewhere'),
    ],
)
def test_wrong_options(inferencer, folder, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        predict_images(inferencer(), [str(folder / 'a.png')], tmp_path / 'out', **options)


def test_images_of_one_name(inferencer, folder, tmp_path):
    Image.open(folder / 'a.png').save(folder / 'more/a.png')
    with pytest.raises(ValueError, match='would both be written as a'):
        predict_images(inferencer(), find_images(folder), tmp_path / 'out')


def test_results_of_two_models_are_not_mixed(inferencer, folder, tmp_path, monkeypatch):
    warnings: list[str] = []
    monkeypatch.setattr(MMLogger, 'warning', lambda self, text, *_: warnings.append(text))
    images, out = find_images(folder), tmp_path / 'out'
    predict_images(inferencer(), images, out, folder)
    assert not any(str(out) in line for line in warnings)
    mine = out / 'clusters/level1/mine.png'
    mine.write_text('mine')
    for other in (inferencer('unlabelled'), inferencer(flip=True), inferencer(levels=[2])):
        warnings.clear()
        summary = predict_images(other, images[:1], out, folder)
        (line,) = (line for line in warnings if str(out) in line)
        assert re.fullmatch(r'the \d predictions by another model or other settings in .+ are replaced', line)
        listed = {file for entry in summary['images'] for heads in entry['masks'].values() for file in heads.values()}
        assert files(out) == listed | {'overlays/a.jpg', 'summary.json', 'clusters/level1/mine.png'}
    assert not (out / 'merged/level3').exists() and mine.read_text() == 'mine'
    warnings.clear()
    predict_images(inferencer(levels=[2]), images[1:], out, folder)
    (line,) = (line for line in warnings if str(out) in line)
    assert 'masks of images that are not among the new ones stay there' in line
    assert {'overlays/a.jpg', 'overlays/b.jpg'} <= files(out)


def test_where_nothing_can_be_segmented_all_stays(inferencer, folder, tmp_path):
    """Of another model's predictions; in a new folder the summary says why there are none."""
    out, broken = tmp_path / 'out', tmp_path / 'broken.png'
    broken.write_text('no image')
    predict_images(inferencer(), find_images(folder), out, folder)
    before = {file: (out / file).read_bytes() for file in files(out)}
    summary = predict_images(inferencer(flip=True), [str(broken)], out)
    assert summary['counts'] == dict(segmented=0, failed=1, skipped=0, found=1)
    assert {file: (out / file).read_bytes() for file in files(out)} == before
    predict_images(inferencer(flip=True), [str(broken)], tmp_path / 'new')
    assert json.loads((tmp_path / 'new/summary.json').read_text())['failed'][0]['image'] == str(broken)


def test_a_summary_that_lists_other_files_removes_none(inferencer, folder, tmp_path):
    out, photo = tmp_path / 'out', folder / 'a.png'
    out.mkdir()
    for name in (str(photo), '../a.png', 'notes.txt'):
        shutil.copy(photo, tmp_path / 'a.png')
        (out / 'notes.txt').write_text('mine')
        entry = dict(masks=dict(clusters=dict(probe=name)), overlay=name)
        (out / 'summary.json').write_text(json.dumps(dict(images=[entry])))
        predict_images(inferencer(), [str(photo)], out)
        assert photo.is_file() and (tmp_path / 'a.png').is_file() and (out / 'notes.txt').is_file()


def test_what_commands_have_written_is_no_photo(inferencer, folder, tmp_path):
    run, images = inferencer(), find_images(folder)
    predict_images(run, images, folder, folder)
    predict_images(run, images, folder / 'more/mine', folder)
    for page in ('index.html', 'explorer.json'):
        (folder / 'page/images').mkdir(parents=True, exist_ok=True)
        (folder / 'page' / page).write_text('')
    Image.new('RGB', (8, 8)).save(folder / 'page/images/0000.png')
    Image.new('RGB', (8, 8)).save(folder / 'more/mine/levels.png')
    assert find_images(folder) == images
    reasons = {reason for _, reason in list_folder(folder).skipped}
    assert {'predictions', 'the page of a hierarchy'} <= reasons
    with pytest.raises(FileNotFoundError, match='the page of a hierarchy'):
        find_images(folder / 'page')


def test_labels_beside_images_are_no_photos(tmp_path):
    for name in ('images/train/a.png', 'labels/train/a.png', 'labels/b.png', 'images/labels/c.png'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 8)).save(tmp_path / name)
    found = [str(tmp_path / name) for name in ('images/labels/c.png', 'images/train/a.png')]
    assert find_images(tmp_path) == found
    assert [reason for _, reason in list_folder(tmp_path).skipped] == 2 * ['labels of what is in images']
    assert len(find_images(tmp_path / 'labels')) == 2
