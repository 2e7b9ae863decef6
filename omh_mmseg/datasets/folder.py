"""Any folder of images, with or without labels."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omh_mmseg.datasets.base import FileSegDataset, data_item
from omh_mmseg.datasets.class_names import complete_classes
from omh_mmseg.datasets.images.formats import describe_suffixes, image_suffixes
from omh_mmseg.datasets.images.listing import images_by_stem
from omh_mmseg.datasets.images.reader import ImageReader
from omh_mmseg.datasets.label_colours import colour_table
from omh_mmseg.datasets.label_files import ALWAYS, CHANNELS
from omh_mmseg.datasets.label_probe import PROBED_LABELS, probe_labels
from omh_mmseg.datasets.lists import read_list
from omh_mmseg.registry import DATASETS
from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.utils.checks import SIZE, ranges
from omh_mmseg.utils.text import first_few

LABELS = ('auto', 'required', 'none')


@DATASETS.register_module()
class FolderSegDataset(FileSegDataset):
    """A folder of images, optional labels, class names from the config or from a JSON file.

    Layouts that are understood, tried in this order::

        <data_root>/images/<split>/**/<stem>.jpg   with   <data_root>/labels/<split>/**/<stem>.png
        <data_root>/images/<stem>.jpg              with   <data_root>/labels/<stem>.png
        <data_root>/<stem>.jpg                     without labels

    Labels are pictures of class numbers ``0 .. num_classes - 1``, of one channel, with a palette or without; 255 is
    ignored. Other values need ``label_map``, classes as colours the colours (docs/data.md, Labels in colours): those of
    ``label_colours``, else the palette of the classes. Palettes of label files that number the classes otherwise are
    read by colour where all their colours are known, and refused where they differ from file to file.

    The class names come from ``metainfo``, else from ``classes_file``, else from ``<data_root>/classes.json``, else the
    classes are numbered ``class_0 ... class_{num_classes - 1}``. The JSON is ``{"classes": [...], "palette": [[r, g,
    b], ...]}`` with an optional palette; text with one class per line serves as well, see `read_class_file`.

    Args:
        data_root: The folder.
        split: Sub-folder of the two prefixes. Empty: the prefixes name the folders themselves, searched recursively.
        data_prefix: Folders of images and labels below ``data_root``. Defaults to
            ``dict(img_path='images', seg_map_path='labels')``.
        num_classes: Number of classes. May be larger than the number of class names (the rest is numbered, with a
            warning), never smaller. Defaults to the number of names.
        classes_file: A file with class names, absolute or below ``data_root``.
        labels: ``'auto'`` reads labels where the label folder exists, ``'required'`` demands it, ``'none'`` never reads
            any. Where labels are read, every image must have one.
        img_suffixes: File endings taken as images, in any case. None: those of all files that Pillow reads.
        label_map: Class of each value in the labels, ``{0: 0, 255: 1}`` (255 as a class: no class), or the values of
            the classes in order, ``[0, 255]``.
        label_colours: Colour of each class in order, or class name -> colour, with ``'ignored'`` for what belongs to
            none; several colours of a class stand in a list. All labels are read by colour then. False reads class
            numbers whatever the palettes say.
        **kwargs: As for :class:`mmseg.datasets.BaseSegDataset` (``metainfo``, ``seg_map_suffix``, in any case,
            ``pipeline``, ``indices``, ``test_mode``, ``ann_file``, a list of images as `read_list` takes it, ...).

    Raises:
        FileNotFoundError: No such folder, no image in it, or a label, listed image or class file is missing.
        ValueError: Two images share a stem, the class names do not fit, or labels cannot mean what they say.
    """

    @ranges(num_classes=SIZE, label_map='[0, 65535]')
    def __init__(
        self,
        data_root: str | None = None,
        split: str = '',
        data_prefix: dict[str, str | None] | None = None,
        num_classes: int | None = None,
        classes_file: str | None = None,
        labels: str = 'auto',
        img_suffixes: Sequence[str] | None = None,
        label_map: Mapping[int, int] | Sequence[int] | None = None,
        label_colours: Mapping[str, Any] | Sequence[Any] | bool | None = None,
        **kwargs: Any,
    ) -> None:
        if labels not in LABELS:
            raise ValueError(f'labels={labels!r} is unknown; choose one of {LABELS}')
        if not data_root:
            raise ValueError('FolderSegDataset needs data_root, the folder of images')
        self.split = split
        self.labels = labels
        self.img_suffixes = tuple(suffix.lower() for suffix in img_suffixes or image_suffixes())
        prefix = dict(img_path='images', seg_map_path='labels') | dict(data_prefix or {})
        if not prefix['seg_map_path']:
            self.labels = 'none'
            prefix['seg_map_path'] = ''
        names = complete_classes(kwargs.pop('metainfo', None) or {}, data_root, classes_file, num_classes)
        self._value_classes = _checked_map(label_map, len(names.metainfo['classes']))
        if kwargs.get('reduce_zero_label') and (label_map or label_colours):
            raise ValueError(
                'reduce_zero_label lowers class numbers by one; beside label_map or label_colours it has no meaning: '
                'say there what 0 is, as in label_map={0: 255, 1: 0, 2: 1}'
            )
        if label_map and label_colours:
            raise ValueError('label_map reads numbers and label_colours colours: give one of them')
        self._reading = _reading(label_colours, names.colours, names.metainfo['classes'], names.source)
        super().__init__(data_root=str(data_root), data_prefix=prefix, metainfo=names.metainfo, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List the images, and their labels where they are wanted.

        Returns:
            One dict per image, sorted by path, with ``img_path`` and, where labels are read, ``seg_map_path``.
        """
        image_folder, label_folder, recursive = self._find_folders()
        images = self._list_images(image_folder, recursive)
        if self.ann_file:
            images = self._listed(images, image_folder)
        labels: dict[str, str | None] = dict.fromkeys(images)
        if label_folder is not None:
            labels |= self._match_labels(list(images), label_folder)
        self._look_at_labels([(images[stem], label) for stem, label in sorted(labels.items()) if label is not None])
        return [data_item(images[stem], labels[stem]) for stem in sorted(images)]

    @staticmethod
    def check_root(data_root: str) -> Path:
        """The folder of a data set; FileNotFoundError where it is none."""
        root = Path(data_root)
        if not root.is_dir():
            raise FileNotFoundError(
                f'data_root {str(root)!r} is not a folder. Point it at your images: --cfg-options data_root=FOLDER '
                'with the folder configs, or the environment variable OMH_DATA_ROOT'
            )
        return root

    def _find_folders(self) -> tuple[Path, Path | None, bool]:
        """Folder of images, folder of labels or None, and whether to search the images recursively."""
        root = self.check_root(self.data_root)
        images, labels = Path(self.data_prefix['img_path']), Path(self.data_prefix['seg_map_path'])
        tried = []
        for folder, label_folder, recursive in (
            (images / self.split, labels / self.split, True),
            (images, labels, False),
            (root, None, False),
        ):
            tried.append(str(folder))
            if folder.is_dir() and (recursive or self._list_images(folder, False, empty_ok=True)):
                return folder, self._label_folder(label_folder), recursive
        looked = ', '.join(dict.fromkeys(tried))
        raise FileNotFoundError(
            f'no images for split {self.split!r}: looked for the folders {looked} with files ending in '
            f"{describe_suffixes(self.img_suffixes)}. Set data_root, split, or data_prefix=dict(img_path=...) with "
            "split=''"
        )

    def _label_folder(self, folder: Path | None) -> Path | None:
        if self.labels == 'none':
            return None
        if folder is not None and folder.is_dir():
            return folder
        if self.labels == 'required':
            raise FileNotFoundError(f"no label folder {folder}, but labels='required'; use labels='none' without")
        return None

    def _list_images(self, folder: Path, recursive: bool, empty_ok: bool = False) -> dict[str, str]:
        images = images_by_stem(folder, self.img_suffixes, recursive)
        if not images and not empty_ok:
            raise FileNotFoundError(f'no images in {folder}: it has no file ending in {self.img_suffixes}')
        return images

    def _listed(self, images: dict[str, str], folder: Path) -> dict[str, str]:
        if not os.path.isfile(self.ann_file):
            raise FileNotFoundError(f'list of images {self.ann_file!r} (ann_file) does not exist')
        return {stem: images[stem] for stem in read_list(self.ann_file, images, folder)}

    def _match_labels(self, stems: list[str], folder: Path) -> dict[str, str]:
        labels = {stem: str(folder / f'{stem}{self.seg_map_suffix}') for stem in stems}
        absent = [stem for stem, path in labels.items() if not os.path.isfile(path)]
        if not absent:
            return labels
        files = _files_below(folder)
        ending = self.seg_map_suffix.lower()
        any_case = {
            name[: len(name) - len(ending)]: path for name, path in files.items() if name.lower().endswith(ending)
        }
        labels |= {stem: any_case[stem] for stem in absent if stem in any_case}
        absent = [stem for stem in absent if stem not in any_case]
        if absent:
            raise FileNotFoundError(
                f'{len(absent)} of {len(labels)} images have no label: {first_few([labels[stem] for stem in absent])}. '
                f"{_other_ending(absent, files)}Add them, or set labels='none' to use the images without labels (no "
                'scores then)'
            )
        return labels

    def _look_at_labels(self, labelled: list[tuple[str, str]]) -> None:
        """How labels are read, found out early: a wrong range stops the run at once, an unused one is a warning."""
        shared = self._label_settings()
        items = [
            dict(shared, img_path=image, seg_map_path=label, **self._size(image))
            for image, label in labelled[:: max(1, len(labelled) // PROBED_LABELS)]
        ]
        if items:
            self._reading |= probe_labels(items, choose='label_reading' not in self._reading)

    def _size(self, image: str) -> dict[str, Any]:
        """What the header of an image says; nothing where it cannot be read, which is reported when it is loaded."""
        header = ImageReader().header(image)
        if header is None:
            return {}
        return dict(ori_shape=header.size(self.turn_images), exif_orientation=header.orientation)

    def _label_settings(self) -> dict[str, Any]:
        return super()._label_settings() | self._reading

    def _value_map(self) -> dict[int, int] | None:
        return self._value_classes


def _reading(option: Any, colours: Any, classes: Sequence[str], source: str) -> dict[str, Any]:
    """The settings of `read_label` for colours, ``label_reading`` only where an option says.

    Args:
        option: ``label_colours`` of the data set.
        colours: Those of the classes.
        classes: Their names.
        source: Where the colours of the classes come from.
    """
    if option is False:
        return dict(label_colours=None, label_reading=CHANNELS)
    if option:
        return dict(label_colours=colour_table(option, classes, 'label_colours'), label_reading=ALWAYS)
    drawn_alike = isinstance(colours, list) and len({tuple(colour) for colour in colours}) < len(colours)
    if not colours or drawn_alike:
        return dict(label_colours=None)
    return dict(label_colours=colour_table(colours, classes, f'the palette of {source}'))


def _checked_map(option: Any, num_classes: int) -> dict[int, int] | None:
    """Class by value; None where labels hold class numbers."""
    if not option:
        return None
    if isinstance(option, Mapping):
        pairs = list(option.items())
    elif isinstance(option, Sequence) and not isinstance(option, str):
        pairs = [(value, number) for number, value in enumerate(option)]
    else:
        pairs = [(option, None)]
    accepted = {*range(num_classes), IGNORED_LABEL}
    wrong = [pair for pair in pairs if type(pair[0]) is not int or pair[1] not in accepted]
    values = [value for value, _ in pairs]
    if wrong or len(set(values)) < len(values):
        raise ValueError(
            'label_map must give each value a class, {value: class, ...}, or list the values of the classes in order; '
            f'classes are 0..{num_classes - 1}, and {IGNORED_LABEL} is no class; got {option!r}'
        )
    return dict(pairs)


def _files_below(folder: Path) -> dict[str, str]:
    """Path of each file by its name from the folder, in sorted order."""
    files = (os.path.join(top, name) for top, _, names in os.walk(folder, followlinks=True) for name in names)
    return {os.path.relpath(path, folder): path for path in sorted(files)}


def _other_ending(stems: Sequence[str], files: Mapping[str, str]) -> str:
    """What follows the stems in the names of the files that are there, as a remedy."""
    wanted = set(stems)
    endings: Counter[str] = Counter()
    for name in files:
        end = next((end for end in range(len(name) - 1, 0, -1) if name[:end] in wanted), None)
        endings[name[end:] if end else ''] += 1
    del endings['']
    if not endings:
        return f'The folder holds {first_few([*files])}. ' if files else 'The folder is empty. '
    ending, count = endings.most_common(1)[0]
    return f'{count} of them have a file that ends in {ending!r}: set seg_map_suffix={ending!r} if it is the label. '
