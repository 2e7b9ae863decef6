"""What can be seen in a demo scene: 24 parts of 12 objects of 6 groups.

The tree is the ground truth against which a learned hierarchy is measured. Labels are stored at the finest level
only; the coarser ones follow from the parent arrays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVELS = ('group', 'object', 'part')

# group -> object -> parts, each with the colour of the part's label.
_TREE: dict[str, dict[str, dict[str, tuple[int, int, int]]]] = {
    'sky': {
        'air': {'clear air': (120, 180, 235)},
        'cloud': {'cloud': (205, 220, 240)},
    },
    'building': {
        'house': {'wall': (214, 160, 120), 'roof': (176, 58, 46), 'window': (250, 215, 160)},
        'tower': {'facade': (150, 110, 100), 'glass front': (240, 120, 90)},
    },
    'vegetation': {
        'tree': {'crown': (34, 120, 50), 'trunk': (90, 130, 40)},
        'bush': {'leaves': (100, 180, 80), 'blossom': (170, 225, 110)},
    },
    'vehicle': {
        'car': {'car body': (150, 40, 150), 'car window': (215, 130, 215), 'wheel': (90, 20, 100)},
        'boat': {'hull': (230, 60, 150), 'sail': (255, 170, 215)},
    },
    'ground': {
        'road': {'asphalt': (95, 95, 95), 'marking': (160, 160, 160)},
        'field': {'grass': (190, 180, 60), 'crop': (235, 215, 90)},
    },
    'water': {
        'sea': {'waves': (20, 60, 170), 'surf': (80, 110, 230)},
        'pond': {'still water': (20, 130, 150), 'lily pads': (60, 190, 180)},
    },
}


@dataclass(frozen=True)
class LabelTree:
    """Names, colours and parents of a three-level label hierarchy.

    Attributes:
        names: Names per level, keyed by ``'group'``, ``'object'`` and ``'part'``.
        palettes: RGB colours (0..255) per level, in the order of ``names``.
        object_of_part: Object number of each part, shape ``(24,)``.
        group_of_object: Group number of each object, shape ``(12,)``.
    """

    names: dict[str, tuple[str, ...]]
    palettes: dict[str, tuple[tuple[int, int, int], ...]]
    object_of_part: np.ndarray
    group_of_object: np.ndarray

    @property
    def group_of_part(self) -> np.ndarray:
        """Group number of each part, shape ``(24,)``."""
        return self.group_of_object[self.object_of_part]

    def part_to(self, level: str) -> np.ndarray:
        """Lookup table from parts to the labels of a level.

        Args:
            level: ``'group'``, ``'object'`` or ``'part'``.

        Returns:
            Label number at that level for each part, shape ``(24,)``.

        Raises:
            ValueError: The level is none of the three.
        """
        if level not in LEVELS:
            raise ValueError(f'level is {level!r}, but demo scenes have labels for {", ".join(map(repr, LEVELS))}')
        parts = np.arange(len(self.object_of_part))
        return dict(part=parts, object=self.object_of_part, group=self.group_of_part)[level]


def _mean_colour(colours: list[tuple[int, int, int]]) -> tuple[int, int, int]:
    red, green, blue = np.mean(colours, axis=0).round().astype(int).tolist()
    return red, green, blue


def _build_tree() -> LabelTree:
    names: dict[str, list[str]] = {level: [] for level in LEVELS}
    palettes: dict[str, list[tuple[int, int, int]]] = {level: [] for level in LEVELS}
    object_of_part, group_of_object = [], []
    for group, objects in _TREE.items():
        for name, parts in objects.items():
            object_of_part += [len(names['object'])] * len(parts)
            group_of_object.append(len(names['group']))
            names['object'].append(name)
            palettes['object'].append(_mean_colour(list(parts.values())))
            names['part'] += parts
            palettes['part'] += parts.values()
        names['group'].append(group)
        palettes['group'].append(_mean_colour([c for parts in objects.values() for c in parts.values()]))
    return LabelTree(
        names={level: tuple(entries) for level, entries in names.items()},
        palettes={level: tuple(entries) for level, entries in palettes.items()},
        object_of_part=np.array(object_of_part),
        group_of_object=np.array(group_of_object),
    )


HIERARCHY = _build_tree()
PART = {name: number for number, name in enumerate(HIERARCHY.names['part'])}
