"""Cityscapes from its downloads to the layout of the configs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from omh_mmseg.datasets.cityscapes27 import LAYOUTS
from omh_mmseg.preparation.downloads.jobs import Count, Plan, Transfer
from omh_mmseg.preparation.downloads.sources import collect, probe_labels
from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.utils.text import first_few

SPLITS = {'train': 2975, 'val': 500}
PATTERNS = dict(
    images=r'leftImg8bit/(train|val)/([^/]+/[^/]+)_leftImg8bit\.png',
    labels=r'gtFine/(train|val)/([^/]+/[^/]+)_gtFine_labelIds\.png',
)


def plan_cityscapes27(sources: Sequence[Path], out: Path, copy: bool = False) -> Plan:
    """What to do for the layout ``'stego'`` of :class:`omh_mmseg.datasets.Cityscapes27`.

    Args:
        sources: Folders or archives with ``leftImg8bit_trainvaltest.zip`` and ``gtFine_trainvaltest.zip``, or what they
            hold.
        out: The ``data_root``; files go to ``cityscapes/`` below it.
        copy: Copy extracted files instead of linking to them.

    Returns:
        The plan.

    Raises:
        FileNotFoundError: A source does not exist.
        ValueError: An archive is damaged, or labels of another kind were found.
    """
    layout = LAYOUTS['stego']
    entries_of = collect([*sources, *([out / 'cityscapes'] if (out / 'cityscapes').is_dir() else [])], PATTERNS)
    plan = Plan('Cityscapes-27', out)
    for split, expected in SPLITS.items():
        images, labels = (
            {key[1]: entry for key, entry in entries_of[kind].items() if key[0] == split}
            for kind in ('images', 'labels')
        )
        plan.counts.append(Count(f'images of {split}', len(images), expected))
        plan.counts.append(Count(f'labels *_labelIds.png of {split}', len(labels), expected))
        if not images:
            plan.missing.append(f'images of {split}: leftImg8bit_trainvaltest.zip, or leftImg8bit/{split}/<city>/*.png')
        if not labels:
            plan.missing.append(
                f'labels of {split}: gtFine_trainvaltest.zip, or gtFine/{split}/<city>/*_gtFine_labelIds.png '
                '(labelTrainIds and polygons do not serve)'
            )
        probe_labels(labels.values(), [*layout.values, IGNORED_LABEL])
        unlabelled = sorted(set(images) - set(labels))
        if labels and unlabelled:
            plan.missing.append(f'labels of {len(unlabelled):,} images of {split}: {first_few(unlabelled)}')
        for kind, entries, suffix in (
            ('images', images, layout.image_suffix), ('labels', labels, layout.label_suffix),
        ):  # fmt: skip
            folder = out / layout.folders(split)[kind]
            plan.jobs += [Transfer(entry, folder / f'{name}{suffix}', copy) for name, entry in entries.items()]
    return plan
