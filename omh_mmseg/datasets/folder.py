"""Any folder of images, with or without labels."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from omh_mmseg.datasets.base import FileSegDataset, data_item, numbered_palette
from omh_mmseg.datasets.images.formats import image_suffixes
from omh_mmseg.datasets.images.listing import images_by_stem
from omh_mmseg.datasets.images.reader import ImageReader
from omh_mmseg.datasets.transforms.loading import read_label
from omh_mmseg.registry import DATASETS
from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.utils.text import first_few

LABELS = ('auto', 'required', 'none')
PROBED_LABELS = 16


@DATASETS.register_module()
class FolderSegDataset(FileSegDataset):
    """A folder of images, optional labels, class names from the config or from a JSON file.

    Layouts that are understood, tried in this order::

        <data_root>/images/<split>/**/<stem>.jpg   with   <data_root>/labels/<split>/**/<stem>.png
        <data_root>/images/<stem>.jpg              with   <data_root>/labels/<stem>.png
        <data_root>/<stem>.jpg                     without labels

    Labels are single-channel images of class numbers ``0 .. num_classes - 1``; 255 is ignored. The class names come
    from ``metainfo``, else from ``classes_file``, else from ``<data_root>/classes.json``, else the classes are numbered
    ``class_0 ... class_{num_classes - 1}``. The JSON is ``{"classes": [...], "palette": [[r, g, b], ...]}`` with an
    optional palette.

    Args:
        data_root: The folder.
        split: Sub-folder of the two prefixes. Empty: the prefixes name the folders themselves, searched recursively.
        data_prefix: Folders of images and labels below ``data_root``. Defaults to
            ``dict(img_path='images', seg_map_path='labels')``.
        num_classes: Number of classes. May be larger than the number of class names (the rest is numbered, with a
            warning), never smaller. Defaults to the number of names.
        classes_file: A JSON with class names, absolute or below ``data_root``.
        labels: ``'auto'`` reads labels where the label folder exists, ``'required'`` demands it, ``'none'`` never reads
            any. Where labels are read, every image must have one.
        img_suffixes: File endings taken as images, in any case. None: those of all files that Pillow reads.
        seg_map_suffix: Ending of the label files.
        metainfo: ``dict(classes=..., palette=...)``.
        **kwargs: As for :class:`mmseg.datasets.BaseSegDataset` (``pipeline``, ``indices``, ``test_mode``, ``ann_file``
            with one stem per line, ...).

    Raises:
        FileNotFoundError: No such folder, no image in it, or a label, listed image or class file is missing.
        ValueError: Two images share a stem, or the class names do not fit.
    """

    def __init__(
        self,
        data_root: str | None = None,
        split: str = '',
        data_prefix: dict[str, str | None] | None = None,
        num_classes: int | None = None,
        classes_file: str | None = None,
        labels: str = 'auto',
        img_suffixes: Sequence[str] | None = None,
        seg_map_suffix: str = '.png',
        metainfo: dict | None = None,
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
        metainfo = _class_names(dict(metainfo or {}), data_root, classes_file, num_classes)
        super().__init__(
            data_root=str(data_root), data_prefix=prefix, metainfo=metainfo, seg_map_suffix=seg_map_suffix, **kwargs
        )

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
        self._probe_labels([(images[stem], label) for stem, label in sorted(labels.items()) if label is not None])
        return [data_item(images[stem], labels[stem]) for stem in sorted(images)]

    def _find_folders(self) -> tuple[Path, Path | None, bool]:
        """Folder of images, folder of labels or None, and whether to search the images recursively."""
        root = Path(self.data_root)
        if not root.is_dir():
            raise FileNotFoundError(
                f'data_root {str(root)!r} is not a folder. Point it at your images: the environment variable '
                'OMH_DATA_ROOT, or --cfg-options train_dataloader.dataset.dataset.data_root=... '
                'val_dataloader.dataset.data_root=... test_dataloader.dataset.data_root=...'
            )
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
            f"{self.img_suffixes}. Set data_root, split, or data_prefix=dict(img_path=...) with split=''"
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
        stems = [line.strip() for line in Path(self.ann_file).read_text(encoding='utf-8').splitlines() if line.strip()]
        absent = [stem for stem in stems if stem not in images]
        if absent:
            raise FileNotFoundError(f'{self.ann_file} lists images that are not in {folder}: {first_few(absent)}')
        return {stem: images[stem] for stem in stems}

    def _match_labels(self, stems: list[str], folder: Path) -> dict[str, str]:
        labels = {stem: str(folder / f'{stem}{self.seg_map_suffix}') for stem in stems}
        absent = [path for path in labels.values() if not os.path.isfile(path)]
        if absent:
            raise FileNotFoundError(
                f'{len(absent)} of {len(labels)} images have no label: {first_few(absent)}. Add them, or set '
                "labels='none' to use the images without labels (no scores then)"
            )
        return labels

    def _probe_labels(self, labelled: list[tuple[str, str]]) -> None:
        """Look at a few labels early: a wrong range stops the run at once, an unused range is worth a warning."""
        if not labelled:
            return
        num_classes = len(self._metainfo['classes'])
        probed = labelled[:: max(1, len(labelled) // PROBED_LABELS)]
        values: set[int] = set()
        for image, label in probed:
            item = dict(
                img_path=image,
                seg_map_path=label,
                num_classes=num_classes,
                turn_images=self.turn_images,
                label_orientation=self.label_orientation,
                reduce_zero_label=self.reduce_zero_label,
                ignore_index=self.ignore_index,
            )
            header = ImageReader().header(image)
            if header is not None:
                item.update(ori_shape=header.size(self.turn_images), exif_orientation=header.orientation)
            values |= set(np.unique(read_label(item)).tolist())
        values -= {IGNORED_LABEL}
        if values and max(values) + 1 < num_classes:
            warnings.warn(
                f'num_classes is {num_classes}, but the {len(probed)} labels looked at in '
                f'{os.path.dirname(labelled[0][1])} hold only the classes 0..{max(values)} '
                f'({max(values) + 1} classes). More clusters than classes is allowed; set '
                f'num_classes={max(values) + 1} if it is not meant',
                stacklevel=2,
            )


def _class_names(metainfo: dict, data_root: str, classes_file: str | None, num_classes: int | None) -> dict:
    """Complete ``classes`` and ``palette`` from the file or by numbering."""
    source = 'metainfo'
    if metainfo.get('classes') is None:
        path = Path(data_root, classes_file or 'classes.json')
        source = str(path)
        if path.is_file():
            metainfo |= _read_classes(path)
        elif classes_file is not None:
            raise FileNotFoundError(f'classes_file {str(path)!r} does not exist')
        elif num_classes is None:
            raise ValueError(
                f'the number of classes is unknown: give num_classes, metainfo=dict(classes=[...]) or {path}'
            )
    classes = list(metainfo.get('classes') or [])
    if num_classes is not None:
        if num_classes < max(len(classes), 1):
            raise ValueError(f'num_classes={num_classes}, but {source} names {len(classes)} classes; it may be larger')
        if classes and num_classes > len(classes):
            warnings.warn(
                f'num_classes is {num_classes}, but {source} names {len(classes)} classes: the others are numbered',
                stacklevel=2,
            )
        classes += [f'class_{index}' for index in range(len(classes), num_classes)]
    if len(set(classes)) != len(classes):
        raise ValueError(f'{source} names a class twice: {sorted({c for c in classes if classes.count(c) > 1})}')
    palette = [list(colour) for colour in metainfo.get('palette') or []]
    if len(palette) > len(classes) or any(len(colour) != 3 for colour in palette):
        raise ValueError(
            f'the palette of {source} must be at most {len(classes)} RGB triples, one per class, got {palette}'
        )
    palette += numbered_palette(len(classes))[len(palette) :]
    return metainfo | dict(classes=tuple(classes), palette=palette)


def _read_classes(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'{path} is not JSON ({error})') from error
    if not isinstance(content, dict) or not isinstance(content.get('classes'), list) or not content['classes']:
        raise ValueError(f'{path} must be {{"classes": [...], "palette": [[r, g, b], ...]}}, the palette optional')
    return {key: content[key] for key in ('classes', 'palette') if key in content}
