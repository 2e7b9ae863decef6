"""COCO-Stuff from its downloads to the layout of the configs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omh_mmseg.datasets.coco_stuff27 import LAYOUTS
from omh_mmseg.preparation.downloads.jobs import Count, Plan, Transfer
from omh_mmseg.preparation.downloads.sources import collect, probe_labels
from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.utils.text import first_few

SPLITS = {'train2017': 118287, 'val2017': 5000}
# docs/methods/data.md 5.2; the first of each split is the one that the configs name.
LISTS = {
    'train2017': {'Coco164kFull_Stuff_Coarse.txt': 97702, 'Coco164kFull_Stuff_Coarse_7.txt': 49629},
    'val2017': {'Coco164kFull_Stuff_Coarse_7.txt': 2175, 'Coco164kFull_Stuff_Coarse.txt': 4172},
}
PATTERNS = dict(
    images=r'(train2017|val2017)/(\d{12})\.jpg',
    labels=r'(train2017|val2017)/(\d{12})\.png',
    lists=r'(train2017|val2017)/(Coco[^/]*\.txt)',
)


def plan_coco_stuff27(sources: Sequence[Path], out: Path, copy: bool = False) -> Plan:
    """What to do for the layout ``'stego'`` of :class:`omh_mmseg.datasets.COCOStuff27`.

    Args:
        sources: Folders or archives with ``train2017.zip``, ``val2017.zip`` and ``stuffthingmaps_trainval2017.zip``, or
            what they hold, and the curated lists in ``curated/<split>/``.
        out: The ``data_root``.
        copy: Copy extracted files instead of linking to them.

    Returns:
        The plan. The lists of the literature cannot be computed; where they are not among the sources, it says so.

    Raises:
        FileNotFoundError: A source does not exist.
        ValueError: An archive is damaged, or labels of another kind were found.
    """
    layout = LAYOUTS['stego']
    entries_of = collect([*sources, *([out / 'cocostuff'] if (out / 'cocostuff').is_dir() else [])], PATTERNS)
    plan = Plan('COCO-Stuff-27', out)
    for split, expected in SPLITS.items():
        images, labels, lists = (
            {key[1]: entry for key, entry in entries_of[kind].items() if key[0] == split}
            for kind in ('images', 'labels', 'lists')
        )
        plan.counts += [Count(f'images of {split}', len(images), expected)]
        plan.counts += [Count(f'labels of {split}', len(labels), expected)]
        if not images:
            plan.missing.append(f'images of {split}: {split}.zip of cocodataset.org, or the folder {split}/ of .jpg')
        if not labels:
            plan.missing.append(
                f'labels of {split}: stuffthingmaps_trainval2017.zip of COCO-Stuff, or its folder {split}/ of .png'
            )
        probe_labels(labels.values(), [*layout.values, IGNORED_LABEL])
        unlabelled = sorted(set(images) - set(labels))
        if labels and unlabelled:
            plan.missing.append(f'labels of {len(unlabelled):,} images of {split}: {first_few(unlabelled)}')
        for name, entry in sorted(lists.items()):
            with entry.open() as file:
                ids = file.read().decode().split()
            plan.counts.append(Count(f'ids in the list {split}/{name}', len(ids), LISTS[split].get(name)))
            absent = [number for number in ids if number not in images]
            if images and absent:
                plan.missing.append(f'images of {split} that {name} lists: {len(absent):,}, {first_few(absent)}')
        wanted = next(iter(LISTS[split]))
        if wanted not in lists:
            plan.missing.append(
                f"the list {split}/{wanted}. It cannot be computed: take it from STEGO's cocostuff archive or from "
                f'curated/{split}/ of the repository of PiCIE, or use every image with an empty list in the config'
            )
        for kind, entries, suffix in (
            ('images', images, layout.image_suffix), ('labels', labels, layout.label_suffix), ('lists', lists, ''),
        ):  # fmt: skip
            folder = out / layout.folders(split)[kind]
            plan.jobs += [Transfer(entry, folder / f'{name}{suffix}', copy) for name, entry in entries.items()]
    return plan
