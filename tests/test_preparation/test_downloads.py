from __future__ import annotations

import json
import os
import runpy
import shutil
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from omh_mmseg.datasets import Cityscapes27, COCOStuff27, Potsdam3
from omh_mmseg.preparation.downloads.cityscapes27 import plan_cityscapes27
from omh_mmseg.preparation.downloads.coco_stuff27 import plan_coco_stuff27
from omh_mmseg.preparation.downloads.jobs import Count, run_jobs
from omh_mmseg.preparation.downloads.potsdam3 import LABELLED_TILES, plan_potsdam3
from omh_mmseg.preparation.downloads.sources import collect

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'prepare.py'
COLOURS = [(255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def zipped(folder: Path, archive: Path) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    assert not archive.is_relative_to(folder)
    with zipfile.ZipFile(archive, 'w', zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob('*')):
            if path.is_file():
                file.write(path, path.relative_to(folder).as_posix())
    return archive


def carry_out(plan, **options) -> int:
    pending = plan.pending()
    run_jobs(pending, progress=False, **options)
    assert plan.pending() == []
    return sum(job.files() for job in pending)


def picture(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def coco_downloads(tmp_path) -> Path:
    """The three archives of COCO-Stuff, extracted, and the curated lists of PiCIE."""
    folder = tmp_path / 'downloads'
    for split in ('train2017', 'val2017'):
        for number in range(3):
            picture(folder / split / f'{number:012d}.jpg', np.full((6, 8, 3), number, np.uint8))
            label = np.full((6, 8), 180 + number % 2, np.uint8)
            picture(folder / 'stuffthingmaps' / split / f'{number:012d}.png', label)
            picture(folder / 'annotations' / f'panoptic_{split}' / f'{number:012d}.png', np.zeros((6, 8, 3), np.uint8))
        (folder / 'curated' / split).mkdir(parents=True)
    (folder / 'curated' / 'train2017' / 'Coco164kFull_Stuff_Coarse.txt').write_text('000000000002\n000000000000\n')
    (folder / 'curated' / 'val2017' / 'Coco164kFull_Stuff_Coarse_7.txt').write_text('000000000001\n')
    return folder


def coco_archives(downloads: Path, target: Path) -> Path:
    for split in ('train2017', 'val2017'):
        (target / 'one' / split).parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(downloads / split, target / 'one' / split)
        zipped(target / 'one', target / f'{split}.zip')
        shutil.rmtree(target / 'one')
    zipped(downloads / 'stuffthingmaps', target / 'stuffthingmaps_trainval2017.zip')
    shutil.copytree(downloads / 'curated', target / 'curated')
    return target


def coco_lengths(root: Path) -> tuple[int, int]:
    return (
        len(COCOStuff27(str(root), ann_file='Coco164kFull_Stuff_Coarse.txt')),
        len(COCOStuff27(str(root), split='val2017', ann_file='Coco164kFull_Stuff_Coarse_7.txt')),
    )


def test_coco_from_folders_links(coco_downloads, tmp_path):
    plan = plan_coco_stuff27([coco_downloads], tmp_path / 'data')
    assert plan.missing == []
    assert carry_out(plan) == 14
    assert coco_lengths(tmp_path / 'data') == (2, 1)
    image = tmp_path / 'data' / 'cocostuff' / 'images' / 'train2017' / '000000000002.jpg'
    assert image.is_symlink() and image.resolve() == coco_downloads / 'train2017' / '000000000002.jpg'


def test_coco_from_archives(coco_downloads, tmp_path):
    plan = plan_coco_stuff27([coco_archives(coco_downloads, tmp_path / 'zips')], tmp_path / 'data', copy=True)
    carry_out(plan, workers=3)
    assert coco_lengths(tmp_path / 'data') == (2, 1)
    made = files(tmp_path / 'data' / 'cocostuff')
    assert len(made) == 14 and not any(path.is_symlink() for path in (tmp_path / 'data').rglob('*'))
    original = coco_downloads / 'stuffthingmaps' / 'val2017' / '000000000001.png'
    assert made['annotations/val2017/000000000001.png'] == original.read_bytes()


def test_what_is_complete_is_kept_and_the_rest_is_mended(coco_downloads, tmp_path):
    sources = [coco_archives(coco_downloads, tmp_path / 'zips')]
    carry_out(plan_coco_stuff27(sources, tmp_path / 'data'))
    kept, cut, lost = (
        tmp_path / 'data' / 'cocostuff' / 'images' / 'train2017' / f'{number:012d}.jpg' for number in range(3)
    )
    before, whole = kept.stat().st_mtime_ns, cut.read_bytes()
    cut.write_bytes(whole[:100])
    lost.unlink()
    assert carry_out(plan_coco_stuff27(sources, tmp_path / 'data')) == 2
    assert kept.stat().st_mtime_ns == before and cut.read_bytes() == whole and lost.is_file()
    # Without the downloads, what was made is still counted.
    (tmp_path / 'empty').mkdir()
    again = plan_coco_stuff27([tmp_path / 'empty'], tmp_path / 'data')
    assert (again.missing, again.pending()) == ([], [])


def test_coco_reports_what_is_missing(coco_downloads, tmp_path):
    shutil.rmtree(coco_downloads / 'val2017')
    shutil.rmtree(coco_downloads / 'curated' / 'val2017')
    (coco_downloads / 'stuffthingmaps' / 'train2017' / '000000000001.png').unlink()
    listed = coco_downloads / 'curated' / 'train2017' / 'Coco164kFull_Stuff_Coarse.txt'
    listed.write_text('000000000002\n000000000007\n')
    plan = plan_coco_stuff27([coco_downloads], tmp_path / 'data')
    report = plan.report(plan.pending())
    for text in (
        '3  images of train2017 (EXPECTED 118,287)',
        '2  ids in the list train2017/Coco164kFull_Stuff_Coarse.txt (EXPECTED 97,702)',
        'missing: labels of 1 images of train2017: 000000000001',
        'missing: images of train2017 that Coco164kFull_Stuff_Coarse.txt lists: 1, 000000000007',
        'missing: images of val2017: val2017.zip',
        'missing: the list val2017/Coco164kFull_Stuff_Coarse_7.txt. It cannot be computed: take it from STEGO',
        'to be made below ' + str(tmp_path / 'data') + ': 9 links; there already: 0',
    ):
        assert text in report
    assert str(Count('tiles', 38, 38)) == '       38  tiles (as expected)'
    assert not (tmp_path / 'data').exists()


def test_wrong_labels_and_damaged_archives(coco_downloads, tmp_path):
    label = coco_downloads / 'stuffthingmaps' / 'train2017' / '000000000000.png'
    picture(label, np.full((6, 8), 200, np.uint8))
    with pytest.raises(ValueError, match=rf'{label}: labels have one channel with values among 0..181 and 255; .*200'):
        plan_coco_stuff27([coco_downloads], tmp_path / 'data')
    (coco_downloads / 'train2017.zip').write_bytes(b'PK\x03\x04 an interrupted download')
    with pytest.raises(ValueError, match=r'train2017.zip is not a complete zip archive .*download it again'):
        plan_coco_stuff27([coco_downloads], tmp_path / 'data')
    with pytest.raises(FileNotFoundError, match="the source '.*nowhere' is neither a folder nor a zip archive"):
        plan_coco_stuff27([tmp_path / 'nowhere'], tmp_path / 'data')


def test_damaged_member_leaves_no_file(coco_downloads, tmp_path):
    archives = coco_archives(coco_downloads, tmp_path / 'zips')
    content = bytearray((archives / 'val2017.zip').read_bytes())
    start = content.index(b'000000000000.jpg') + len('000000000000.jpg')
    content[start + 20 : start + 40] = bytes(20)
    (archives / 'val2017.zip').write_bytes(content)
    plan = plan_coco_stuff27([archives], tmp_path / 'data')
    with pytest.raises(OSError, match=r'val2017/000000000000.jpg is damaged .*download the archive again'):
        run_jobs(plan.pending(), progress=False)
    folder = tmp_path / 'data' / 'cocostuff' / 'images' / 'val2017'
    assert '000000000000.jpg' not in os.listdir(folder) and not list(folder.glob('.*'))


def test_damaged_files_are_named(tmp_path):
    """Whatever reads them: a list in an archive, a tile on disk that a full disk has cut."""
    archive = zipped_list(tmp_path)
    plan = partial(plan_potsdam3, [tmp_path], tmp_path / 'data')
    with pytest.raises(OSError, match=rf'{archive}/labelled_test.txt is damaged .BadZip.*download the archive again'):
        plan()
    archive.unlink()
    downloads = tile_pictures(tmp_path / 'downloads', ('2_10',), 400)
    tile = downloads / '4_Ortho_RGBIR' / 'top_potsdam_2_10_RGBIR.tif'
    tile.write_bytes(tile.read_bytes()[:-1000])
    with pytest.raises(OSError, match=rf'{tile} is damaged .*; download it again'):
        run_jobs(plan().pending(), progress=False)
    assert not list((tmp_path / 'data').rglob('*.mat'))
    tile.write_bytes(b'')
    with pytest.raises(ValueError, match=rf'1 files are empty, .*: {tile}; get them again'):
        plan()


def zipped_list(folder: Path) -> Path:
    """An archive of a Potsdam list in which a byte was changed after it was made."""
    archive = folder / 'lists.zip'
    with zipfile.ZipFile(archive, 'w') as file:
        for name in ('labelled_train', 'labelled_test'):
            file.writestr(f'{name}.txt', 'a_tile\n' * 50)
        file.writestr('imgs/a_tile.mat', 'patch')
    content = bytearray(archive.read_bytes())
    content[content.rindex(b'a_tile\n') - 40] ^= 1
    archive.write_bytes(content)
    return archive


def test_workers_must_be_positive():
    with pytest.raises(ValueError, match='workers must be at least 1, got 0'):
        run_jobs([], workers=0)


@pytest.mark.parametrize('archived', [False, True])
def test_cityscapes(cityscapes, tmp_path, archived):
    downloads = cityscapes() / 'cityscapes'
    sources = [downloads]
    if archived:
        for kind in ('leftImg8bit', 'gtFine'):
            shutil.copytree(downloads / kind, tmp_path / 'one' / kind / kind)
        sources = [
            zipped(tmp_path / 'one' / kind, tmp_path / f'{kind}_trainvaltest.zip') for kind in ('leftImg8bit', 'gtFine')
        ]
    plan = plan_cityscapes27(sources, tmp_path / 'data')
    assert '4  labels *_labelIds.png of val (EXPECTED 500)' in plan.report([])
    assert carry_out(plan) == 16
    assert len(Cityscapes27(str(tmp_path / 'data'), split='train')) == 4
    assert len(Cityscapes27(str(tmp_path / 'data'), split='val')) == 4
    assert not list((tmp_path / 'data').rglob('*labelTrainIds*'))


def test_cityscapes_in_place(cityscapes):
    """Where the downloads were extracted into the right folder, nothing is to be done."""
    root = cityscapes()
    plan = plan_cityscapes27([root], root)
    assert (plan.missing, plan.pending()) == ([], [])


def test_cityscapes_without_label_ids(cityscapes, tmp_path):
    downloads = cityscapes() / 'cityscapes'
    for path in downloads.glob('gtFine/val/*/*labelIds.png'):
        path.unlink()
    plan = plan_cityscapes27([downloads], tmp_path / 'data')
    (missing,) = plan.missing
    assert missing.startswith('labels of val: gtFine_trainvaltest.zip') and 'labelTrainIds and polygons' in missing


def test_potsdam_archive_with_its_lists(potsdam, tmp_path):
    archive = zipped(potsdam() / 'potsdam', tmp_path / 'zips' / 'potsdam.zip')
    plan = plan_potsdam3([archive], tmp_path / 'data')
    assert '2  ids in the list labelled_train.txt (EXPECTED 4,545)' in plan.report([])
    assert plan.missing == plan.notes == []
    carry_out(plan)
    assert files(tmp_path / 'data' / 'potsdam') == files(tmp_path / 'potsdam')
    assert plan_potsdam3([archive], tmp_path / 'data').pending() == []


def test_potsdam_patches_without_lists(potsdam, tmp_path):
    root = potsdam() / 'potsdam'
    for path in root.glob('*.txt'):
        path.unlink()
    plan = plan_potsdam3([root], tmp_path / 'data')
    assert 'NOT the split of IIC and STEGO' in plan.report([])
    carry_out(plan)
    folder = tmp_path / 'data' / 'potsdam'
    lists = {path.stem: path.read_text().split() for path in folder.glob('*.txt')}
    assert (len(lists['labelled_train']), len(lists['labelled_test'])) == (2, 1)
    assert sorted(lists['labelled_train'] + lists['labelled_test']) == ['0', '1', '2']
    assert lists['unlabelled_train'] == ['3'] and lists['all'] == ['0', '1', '2', '3']


def tile_pictures(folder: Path, tiles=('2_10', '7_12', '2_13'), side: int = 800) -> Path:
    generator = np.random.default_rng(0)
    for tile in tiles:
        image = generator.integers(0, 256, (side, side, 4), dtype=np.uint8)
        picture(folder / '4_Ortho_RGBIR' / f'top_potsdam_{tile}_RGBIR.tif', image)
        label = np.array(COLOURS, np.uint8)[generator.integers(0, 6, (side, side))]
        picture(folder / '5_Labels_all' / f'top_potsdam_{tile}_label.tif', label)
    return folder


@pytest.mark.parametrize('archived', [False, True])
def test_potsdam_tiles(tmp_path, archived):
    downloads = tile_pictures(tmp_path / 'downloads')
    source = zipped(downloads, tmp_path / 'Potsdam.zip') if archived else downloads
    plan = plan_potsdam3([source], tmp_path / 'data', seed=3)
    assert '12  patches of 200 x 200 from these tiles (EXPECTED 8,550)' in plan.report([])
    assert len(plan.missing) == 0 and 'NOT the split of IIC and STEGO' in plan.notes[0]
    assert carry_out(plan) == 24 + 5
    folder = tmp_path / 'data' / 'potsdam'
    image = np.array(Image.open(downloads / '4_Ortho_RGBIR' / 'top_potsdam_7_12_RGBIR.tif')).astype(int)
    colours = np.array(Image.open(downloads / '5_Labels_all' / 'top_potsdam_7_12_label.tif'))
    patch = scipy.io.loadmat(folder / 'imgs' / '7_12_1_0.mat')['img']
    means = image.reshape(400, 2, 400, 2, 4).mean(axis=(1, 3))[200:, :200]
    assert patch.shape == (200, 200, 4) and patch.dtype == np.uint8
    assert np.abs(patch - means).max() <= 0.5
    label = scipy.io.loadmat(folder / 'gt' / '7_12_1_0.mat')['gt']
    assert label.dtype == np.int32
    np.testing.assert_array_equal(np.array(COLOURS)[label], colours[400::2, :400:2])
    # 2_13 has labels, but IIC had none of it; a tenth of 12 patches, rounded down, is for the test.
    lists = {path.stem: path.read_text().split() for path in folder.glob('*.txt')}
    assert {name: len(ids) for name, ids in lists.items()} == dict(
        labelled_train=7, labelled_test=1, unlabelled_train=4, all=12
    )
    assert all(name.startswith('2_13_') for name in lists['unlabelled_train'])
    assert json.loads((folder / 'split.json').read_text())['seed'] == 3
    data = Potsdam3(
        str(tmp_path / 'data'), ann_file='labelled_test.txt', test_mode=True,
        pipeline=[
            dict(type='LoadImageFromFile', backend_args=dict(backend='mat_image')),
            dict(type='LoadOptionalAnnotations'),
        ],
    )  # fmt: skip
    assert data[0]['img'].shape == (200, 200, 3) and set(np.unique(data[0]['gt_seg_map'])) == {0, 1, 2}


def test_potsdam_tiles_resume_and_keep_the_split(tmp_path):
    downloads = tile_pictures(tmp_path / 'downloads', ('2_10',))
    carry_out(plan_potsdam3([downloads], tmp_path / 'data', seed=3))
    before = files(tmp_path / 'data')
    kept = tmp_path / 'data' / 'potsdam' / 'imgs' / '2_10_0_0.mat'
    (tmp_path / 'data' / 'potsdam' / 'gt' / '2_10_1_1.mat').unlink()
    time = kept.stat().st_mtime_ns
    assert carry_out(plan_potsdam3([downloads], tmp_path / 'data', seed=3)) == 8
    assert kept.stat().st_mtime_ns == time and files(tmp_path / 'data') == before
    with pytest.raises(ValueError, match='holds a split drawn with the seed 3, not 0; give that seed'):
        plan_potsdam3([downloads], tmp_path / 'data')


def test_lists_of_iic_do_not_fit_tiles(tmp_path, potsdam):
    downloads = tile_pictures(tmp_path / 'downloads', ('2_10',), 400)
    (downloads / 'labelled_train.txt').write_text('17\n')
    (downloads / 'labelled_test.txt').write_text('2_10_0_0\n')
    with pytest.raises(ValueError, match='labelled_train.txt lists 1 of 1 patches that are not there.*: 17. The'):
        plan_potsdam3([downloads], tmp_path / 'data')
    for path in downloads.glob('*.txt'):
        path.unlink()
    with pytest.raises(ValueError, match='take them out of the sources or choose another output folder'):
        plan_potsdam3([downloads], potsdam())  # the folder holds STEGO's archive already


def test_potsdam_tile_errors(tmp_path):
    downloads = tile_pictures(tmp_path / 'downloads', ('2_10',), 400)
    label = downloads / '5_Labels_all' / 'top_potsdam_2_10_label.tif'
    picture(label, np.full((400, 400, 3), (252, 255, 0), np.uint8))
    plan = plan_potsdam3([downloads], tmp_path / 'data')
    with pytest.raises(ValueError, match=rf'{label}: 1 colour that stand.* for no class, \(252, 255, 0\); known are'):
        run_jobs(plan.pending(), progress=False)
    picture(label, np.full((800, 400, 3), 255, np.uint8))
    with pytest.raises(ValueError, match=r'differ in size: half of them is \(200, 200\) and \(400, 200\)'):
        run_jobs(plan.pending(), progress=False)
    tile = downloads / '4_Ortho_RGBIR' / 'top_potsdam_2_10_RGBIR.tif'
    picture(tile, np.zeros((400, 400, 3), np.uint8))
    with pytest.raises(ValueError, match=rf'{tile}: a tile must have four independent channels .* \(400, 400, 3\)'):
        run_jobs(plan.pending(), progress=False)
    picture(tile, np.zeros((500, 400, 4), np.uint8))
    with pytest.raises(ValueError, match='400 x 500 pixels does not divide into squares of 400 pixels'):
        plan_potsdam3([downloads], tmp_path / 'data')
    label.unlink()
    picture(tile, np.zeros((400, 400, 4), np.uint8))
    report = '\n'.join(plan_potsdam3([downloads], tmp_path / 'data').missing)
    assert 'labels of 1 tiles, 2_10' in report and 'labelled_train.txt' in report


def test_labelled_tiles_of_iic():
    """24 of the 38 tiles, 5,400 patches (docs/methods/data.md 5.5); mmseg's converter trains on the same ones."""
    assert len(LABELLED_TILES) == 24
    assert {'2_10', '6_7', '7_12'} <= LABELLED_TILES and not {'2_13', '5_7'} & LABELLED_TILES


def test_first_source_and_files_before_archives(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        (tmp_path / name / 'x.txt').write_text(name)
    zipped(tmp_path / 'b', tmp_path / 'all.zip').rename(tmp_path / 'b' / 'all.zip')
    found = collect([tmp_path / 'b', tmp_path / 'a'], dict(text=r'(x)\.txt'))
    assert found['text'][('x',)].path == str(tmp_path / 'b' / 'x.txt')


def test_command(coco_downloads, tmp_path, capsys):
    main = runpy.run_path(str(TOOL))['main']

    def command(*words: str, status: int) -> str:
        arguments = ['coco-stuff27', '--source', str(coco_downloads), '--out', str(tmp_path / 'data'), *words]
        ended = 0
        try:
            main(['dataset', *arguments])
        except SystemExit as stopped:
            ended = stopped.code
        assert ended == status
        return capsys.readouterr().out

    report = command('--dry-run', status=0)
    assert 'dry run: nothing was written' in report and '14 links' in report
    assert not (tmp_path / 'data').exists()
    assert f'COCO-Stuff-27 is below {tmp_path / "data"}' in command('--copy', status=0)
    assert coco_lengths(tmp_path / 'data') == (2, 1)
    shutil.rmtree(coco_downloads / 'curated')
    shutil.rmtree(tmp_path / 'data')
    assert 'missing: the list train2017' in command('--dry-run', status=1)
    with pytest.raises(SystemExit, match="prepare.py: the source '.*nowhere' is neither"):
        main(['dataset', 'potsdam3', '--source', str(tmp_path / 'nowhere')])
