"""Published data sets: known folder layouts, lists of images, and a table from values on disk to classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from omh_mmseg.datasets.base import FileSegDataset, data_item, numbered_palette
from omh_mmseg.datasets.lists import read_list
from omh_mmseg.shipped import command_line
from omh_mmseg.structures.granularity import Granularity
from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.utils.checks import ranges
from omh_mmseg.utils.text import first_few


@dataclass(frozen=True)
class Layout:
    """Where a data set keeps its files, and what its labels hold.

    Attributes:
        images: Folder of images below ``data_root``; ``{split}`` is filled in.
        labels: Folder of labels, likewise.
        lists: Folder of lists, likewise.
        image_suffix: What follows the id in the name of an image.
        label_suffix: What follows the id in the name of a label.
        values: Class of each value that a label may hold; 255 stands for no class. 255 itself is always accepted.
        nested: Images lie in sub-folders, which are part of the id.
        list_needed: The layout has no folder per split, so that a list alone separates training from validation.
        finest: Finest label of each value, where the classes of ``values`` merge several; None where they are it.
    """

    images: str
    labels: str
    lists: str
    image_suffix: str
    label_suffix: str
    values: Mapping[int, int]
    nested: bool = False
    list_needed: bool = False
    finest: Mapping[int, int] | None = None

    def folders(self, split: str) -> dict[str, str]:
        """Folders of ``images``, ``labels`` and ``lists`` of one split."""
        return {kind: getattr(self, kind).format(split=split) for kind in ('images', 'labels', 'lists')}


class LayoutSegDataset(FileSegDataset):
    """Base of the published data sets; a subclass says what :attr:`LAYOUTS` are and names the classes.

    Args:
        data_root: The folder above those of the layout.
        layout: One of :attr:`LAYOUTS`.
        split: Name of the split's folders.
        ann_file: List of ids, one per line, with or without the ending of the image: a name in the layout's folder of
            lists, or an absolute path. Empty: every image of the split. Images that are not in the list are not opened.
        labels: ``'required'``, or ``'none'`` to train without labels (no scores then).
        level: Name of one of :attr:`GRANULARITIES` to have labels of another granularity; None for the usual classes.
        reduce_zero_label: Must stay false, the table of the layout already says what each value means.
        turn_images: False, as the labels of these sets were drawn on the pixels as they are stored; see
            `FileSegDataset`.
        **kwargs: As for :class:`mmseg.datasets.BaseSegDataset` (``pipeline``, ``metainfo``, ``indices``, ...).

    Raises:
        FileNotFoundError: A folder, the list, a listed image or its label is missing; the message says what was looked
            for and where.
        ValueError: Unknown layout or level, an empty list, or none where the layout needs one.
    """

    LAYOUTS: ClassVar[Mapping[str, Layout]]
    GRANULARITIES: ClassVar[tuple[Granularity, ...]] = ()

    @ranges()
    def __init__(
        self,
        data_root: str = 'data/',
        layout: str = 'stego',
        split: str = 'train',
        ann_file: str = '',
        labels: str = 'required',
        level: str | None = None,
        reduce_zero_label: bool = False,
        turn_images: bool = False,
        **kwargs: Any,
    ) -> None:
        if layout not in self.LAYOUTS:
            raise ValueError(f'layout={layout!r} is unknown; choose one of {sorted(self.LAYOUTS)}')
        if labels not in ('required', 'none'):
            raise ValueError(f"labels={labels!r} is unknown; choose 'required' or 'none'")
        if reduce_zero_label:
            raise ValueError(
                f'{type(self).__name__} maps the values of its labels by a table; leave reduce_zero_label out'
            )
        self.layout, self.split, self.labels, self.level = layout, split, labels, level
        if level is not None:
            kwargs['metainfo'] = self._classes_of_level(dict(kwargs.get('metainfo') or {}))
        chosen = self.LAYOUTS[layout]
        folders = chosen.folders(split)
        if ann_file and not os.path.isabs(ann_file):
            ann_file = os.path.join(folders['lists'], ann_file)
        if chosen.list_needed and not ann_file:
            raise ValueError(
                f'layout={layout!r} of {type(self).__name__} has no folder per split: set ann_file to the list of '
                f'images in {os.path.join(data_root, folders["lists"])!r}'
            )
        super().__init__(
            data_root=str(data_root),
            data_prefix=dict(img_path=folders['images'], seg_map_path=folders['labels']),
            ann_file=ann_file,
            img_suffix=chosen.image_suffix,
            seg_map_suffix=chosen.label_suffix,
            turn_images=turn_images,
            **{'label_orientation': 'stored', **kwargs},
        )

    def load_data_list(self) -> list[dict]:
        """The listed images with their labels, in the order of the list; without a list sorted by id.

        Returns:
            One dict per image with ``img_path`` and, unless ``labels='none'``, ``seg_map_path``.
        """
        images = self._listing('img_path', self.img_suffix, 'images')
        ids = self._ids(images)
        labels: dict[str, str] = {}
        if self.labels == 'required':
            labels = self._listing('seg_map_path', self.seg_map_suffix, 'labels')
            absent = [name for name in ids if name not in labels]
            if absent:
                raise FileNotFoundError(
                    f'{len(absent)} of {len(ids)} images have no label <id>{self.seg_map_suffix} in '
                    f'{self.data_prefix["seg_map_path"]}: {first_few(absent)}. {self._layout_hint()}'
                )
        return [data_item(images[name], labels.get(name)) for name in ids]

    def _value_map(self) -> dict[int, int]:
        """Value on disk -> class, through the table of the layout and then the classes that the config chose."""
        table = {IGNORED_LABEL: IGNORED_LABEL, **self._values()}
        if self.label_map is None:
            return table
        chosen = {**self.label_map, IGNORED_LABEL: IGNORED_LABEL}
        return {value: chosen[target] for value, target in table.items()}

    def get_label_map(self, new_classes: Sequence[str] | None = None) -> dict[int, int] | None:
        """Map to the classes that the config chose from those of the level (255 for classes left out), if any."""
        if self.level is None:
            return super().get_label_map(new_classes)
        names = self._granularity().classes
        if new_classes is None or list(new_classes) == list(names):
            return None
        chosen = list(new_classes)
        return {number: chosen.index(name) if name in chosen else IGNORED_LABEL for number, name in enumerate(names)}

    def _granularity(self) -> Granularity:
        for one in self.GRANULARITIES:
            if one.name == self.level:
                return one
        names = ' and '.join(repr(one.name) for one in self.GRANULARITIES) or 'no other level than None'
        raise ValueError(f'level is {self.level!r}, but {type(self).__name__} has {names}')

    def _classes_of_level(self, metainfo: dict[str, Any]) -> dict[str, Any]:
        names = self._granularity().classes
        metainfo.setdefault('classes', names)
        unknown = [name for name in metainfo['classes'] if name not in names]
        if unknown:
            raise ValueError(
                f'classes {first_few(unknown)} are not among the {self.level!r} labels of {type(self).__name__}: '
                f'{", ".join(names)}'
            )
        metainfo.setdefault('palette', numbered_palette(len(metainfo['classes'])))
        return metainfo

    def _values(self) -> Mapping[int, int]:
        layout = self.LAYOUTS[self.layout]
        if self.level is None:
            return layout.values
        table = self._granularity().table
        finest = layout.values if layout.finest is None else layout.finest
        return {value: label if label == IGNORED_LABEL else int(table[label]) for value, label in finest.items()}

    def _listing(self, prefix: str, suffix: str, what: str) -> dict[str, str]:
        """Paths of a folder by id."""
        top = self.data_prefix[prefix]
        if not os.path.isdir(top):
            raise FileNotFoundError(f'no folder of {what} {top!r}. {self._layout_hint()}')
        paths = {}
        for folder, subfolders, names in os.walk(top, followlinks=True):
            if not self.LAYOUTS[self.layout].nested:
                subfolders.clear()
            below = os.path.relpath(folder, top).replace(os.sep, '/')
            parent = '' if below == '.' else f'{below}/'
            for name in names:
                if name.endswith(suffix):
                    paths[parent + name.removesuffix(suffix)] = os.path.join(folder, name)
        return paths

    def _ids(self, images: dict[str, str]) -> list[str]:
        if not self.ann_file:
            if not images:
                folder = self.data_prefix['img_path']
                raise FileNotFoundError(f'no *{self.img_suffix} files in {folder!r}. {self._layout_hint()}')
            return sorted(images)
        if not os.path.isfile(self.ann_file):
            without = '' if self.LAYOUTS[self.layout].list_needed else "; ann_file='' takes every image"
            raise FileNotFoundError(f'no list of images {self.ann_file!r}{without}. {self._layout_hint()}')
        return read_list(self.ann_file, images, self.data_prefix['img_path'])

    def _layout_hint(self) -> str:
        layout = self.LAYOUTS[self.layout]
        expected = ', '.join(layout.folders(self.split).values())
        hint = (
            f"layout='{self.layout}' looks below data_root={self.data_root!r} for {expected} and labels "
            f'<id>{layout.label_suffix}; set data_root or layout (one of {sorted(self.LAYOUTS)}), or '
            f'bring your downloads into place with {command_line("prepare.py")} dataset'
        )
        for name, other in self.LAYOUTS.items():
            if name != self.layout and os.path.isdir(os.path.join(self.data_root, other.folders(self.split)['images'])):
                hint += f'. The folders of layout={name!r} are there'
        return hint
