"""Potsdam, from STEGO's archive or from the tiles of ISPRS, to the layout of the configs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from omh_mmseg.preparation.downloads.jobs import Count, Plan, Transfer, WriteText
from omh_mmseg.preparation.downloads.potsdam_tiles import CutTile, grid
from omh_mmseg.preparation.downloads.sources import Entries, Entry, collect
from omh_mmseg.utils.text import first_few

PATTERNS = dict(
    images=r'imgs/([^/]+)\.mat',
    labels=r'gt/([^/]+)\.mat',
    lists=r'(labelled_train|labelled_test|unlabelled_train|all)\.txt',
    tiles=r'top_potsdam_(\d+_\d+)_RGBIR\.tif',
    tile_labels=r'top_potsdam_(\d+_\d+)_label\.tif',
)
PATCHES, LABELLED_PATCHES, TILES = 8550, 5400, 38
LISTS = dict(labelled_train=4545, labelled_test=855, unlabelled_train=3150, all=PATCHES)
NEEDED_LISTS = ('labelled_train', 'labelled_test')
# Tiles whose labels were given to the participants of the ISPRS contest: the labelled ones of IIC.
LABELLED_TILES = frozenset(
    f'{row}_{column}'
    for row, columns in {2: (10, 11, 12), 3: (10, 11, 12), 4: (10, 11, 12), 5: (10, 11, 12), 6: range(7, 13),
                         7: range(7, 13)}.items()
    for column in columns
)  # fmt: skip
TEST_SHARE = 0.1
SPLIT_FILE = 'split.json'
ORIGIN = "drawn at random by omh_mmseg; NOT the split of IIC and STEGO, so scores do not compare with the literature's"


def plan_potsdam3(sources: Sequence[Path], out: Path, copy: bool = False, seed: int = 0) -> Plan:
    """What to do for the layout ``'stego'`` of :class:`omh_mmseg.datasets.Potsdam3`.

    Args:
        sources: Folders or archives with STEGO's ``potsdam`` archive (``imgs/*.mat``, ``gt/*.mat``, lists), or with the
            tiles of ISPRS, ``4_Ortho_RGBIR`` and ``5_Labels_for_participants`` or ``5_Labels_all``. Patches count
            before tiles.
        out: The ``data_root``; files go to ``potsdam/`` below it.
        copy: Copy extracted files instead of linking to them.
        seed: Of the split that is drawn where there are no lists.

    Returns:
        The plan. IIC numbered the patches and drew the split at random, without a seed: its lists fit its own patches
        only, so tiles get a split of this function's, and a file ``split.json`` and a note say so.

    Raises:
        FileNotFoundError: A source does not exist.
        ValueError: An archive is damaged, tiles do not divide into patches, lists do not fit the patches, or ``out``
            holds another split, which would be replaced.
    """
    folder = out / 'potsdam'
    entries_of = collect([*sources, *([folder] if folder.is_dir() else [])], PATTERNS)
    plan = Plan('Potsdam-3', out)
    tiled = bool(entries_of['tiles']) and all(_inside(entry, folder) for entry in entries_of['images'].values())
    names, labelled = _plan_tiles(plan, entries_of, folder) if tiled else _plan_patches(plan, entries_of, folder, copy)
    if names:
        _plan_lists(plan, entries_of, folder, copy, names, labelled, seed)
    return plan


def _inside(entry: Entry, folder: Path) -> bool:
    return entry.archive is None and Path(entry.path).is_relative_to(folder.absolute())


def _plan_patches(plan: Plan, entries_of: Entries, folder: Path, copy: bool) -> tuple[list[str], set[str]]:
    images, labels = ({key[0]: entry for key, entry in entries_of[kind].items()} for kind in ('images', 'labels'))
    plan.counts += [Count('patches imgs/*.mat', len(images), PATCHES)]
    plan.counts += [Count('labels gt/*.mat', len(labels), LABELLED_PATCHES)]
    if not images:
        plan.missing.append(
            "patches imgs/*.mat of STEGO's potsdam archive, or the tiles top_potsdam_<row>_<column>_RGBIR.tif of "
            "ISPRS (4_Ortho_RGBIR.zip; extract the outer Potsdam.zip first)"
        )
    if not labels:
        plan.missing.append('labels gt/*.mat, or top_potsdam_<row>_<column>_label.tif for the tiles')
    for kind, entries in (('imgs', images), ('gt', labels)):
        plan.jobs += [Transfer(entry, folder / kind / f'{name}.mat', copy) for name, entry in entries.items()]
    return sorted(images), set(images) & set(labels)


def _plan_tiles(plan: Plan, entries_of: Entries, folder: Path) -> tuple[list[str], set[str]]:
    tiles = {key[0]: entry for key, entry in sorted(entries_of['tiles'].items())}
    labels = {key[0]: entry for key, entry in entries_of['tile_labels'].items()}
    usable = LABELLED_TILES & set(tiles)
    plan.counts += [Count('tiles with four channels', len(tiles), TILES)]
    plan.counts += [Count('labels of the tiles that IIC has labels of', len(usable & set(labels)), len(LABELLED_TILES))]
    unlabelled = sorted(usable - set(labels))
    if unlabelled:
        plan.missing.append(
            f'labels of {len(unlabelled)} tiles, {first_few(unlabelled)}: 5_Labels_for_participants or 5_Labels_all, '
            'top_potsdam_<tile>_label.tif'
        )
    names: list[str] = []
    labelled: set[str] = set()
    for tile, entry in tiles.items():
        job = CutTile(tile, entry, labels.get(tile), folder, *grid(entry))
        plan.jobs.append(job)
        patches = [name for name, _, _ in job.patches()]
        names += patches
        if tile in LABELLED_TILES and job.label:
            labelled.update(patches)
    plan.counts.append(Count('patches of 200 x 200 from these tiles', len(names), PATCHES))
    return names, labelled


def _plan_lists(
    plan: Plan, entries_of: Entries, folder: Path, copy: bool, names: list[str], labelled: set[str], seed: int
) -> None:
    """The user's lists where they fit the patches, else a split drawn with a seed."""
    lists = {key[0]: entry for key, entry in entries_of['lists'].items()}
    drawn = (folder / SPLIT_FILE).is_file() and all(_inside(entry, folder) for entry in lists.values())
    if all(name in lists for name in NEEDED_LISTS) and not drawn:
        for name, entry in sorted(lists.items()):
            with entry.open() as file:
                ids = file.read().decode().split()
            known = labelled if name in NEEDED_LISTS else set(names)
            absent = [number for number in ids if number not in known]
            plan.counts.append(Count(f'ids in the list {name}.txt', len(ids), LISTS[name]))
            if absent:
                raise ValueError(
                    f'{entry.path} lists {len(absent)} of {len(ids)} patches that are not there'
                    + (' with a label' if name in NEEDED_LISTS else '')
                    + f': {first_few(absent)}. The lists of IIC fit the patches of its own archive only; for tiles, '
                    'take them out of the sources or choose another output folder'
                )
            plan.jobs.append(Transfer(entry, folder / f'{name}.txt', copy))
        return
    if len(labelled) < 2:
        plan.missing.append('the lists labelled_train.txt and labelled_test.txt, or labels to draw a split from')
        return
    _check_seed(folder / SPLIT_FILE, seed)
    tests = min(max(int(TEST_SHARE * len(names)), 1), len(labelled) - 1)
    pool = [name for name in names if name in labelled]
    chosen = {pool[place] for place in np.random.default_rng(seed).choice(len(pool), tests, replace=False).tolist()}
    contents = dict(
        labelled_train=[name for name in pool if name not in chosen],
        labelled_test=[name for name in pool if name in chosen],
        unlabelled_train=[name for name in names if name not in labelled],
        all=names,
    )
    for name, ids in contents.items():
        plan.jobs.append(WriteText(folder / f'{name}.txt', ''.join(f'{number}\n' for number in ids)))
        plan.counts.append(Count(f'ids for the list {name}.txt, to be drawn with seed {seed}', len(ids), LISTS[name]))
    plan.jobs.append(WriteText(folder / SPLIT_FILE, json.dumps(dict(origin=ORIGIN, seed=seed)) + '\n'))
    plan.notes.append(f'there are no lists of a published split among the sources: the split is {ORIGIN}')


def _check_seed(path: Path, seed: int) -> None:
    """An earlier split stays as it is."""
    if not path.is_file():
        return
    try:
        earlier = json.loads(path.read_text(encoding='utf-8')).get('seed')
    except (ValueError, AttributeError):
        earlier = None
    if earlier != seed:
        raise ValueError(
            f'{path.parent} holds a split drawn with the seed {earlier}, not {seed}; give that seed, or remove '
            f'{path.name} and the lists beside it'
        )
