"""What every data set of images on disk shares: errors that name the file, and the palette of numbered classes."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import Any

import cv2
from mmseg.datasets import BaseSegDataset
from PIL import Image

from omh_mmseg.datasets.images.load_image import with_own_loader
from omh_mmseg.datasets.images.orientation import LABEL_ORIENTATIONS
from omh_mmseg.utils.checks import ranges

UNREADABLE = (OSError, AssertionError, SyntaxError, EOFError, cv2.error, Image.DecompressionBombError)


def numbered_palette(num_classes: int) -> list[list[int]]:
    """Distinct colours for any number of classes, the same on every machine.

    Args:
        num_classes: Number of colours wanted.

    Returns:
        RGB triples in 0..255. Hues follow the golden ratio, so that neighbours in number are far apart in colour, and
        a longer palette begins with the shorter one.
    """
    palette = []
    for index in range(num_classes):
        hue = (index * 0.618034) % 1.0
        saturation = (0.85, 0.55, 0.95)[index % 3]
        value = (0.95, 0.80, 0.60)[(index // 3) % 3]
        palette.append([round(255 * channel) for channel in colorsys.hsv_to_rgb(hue, saturation, value)])
    return palette


def run_pipeline(pipeline: Callable[[dict], Any], data_info: dict) -> Any:
    """Run a pipeline on one item; an image that cannot be read is reported by its name.

    Args:
        pipeline: The composed transforms.
        data_info: One item as ``get_data_info`` returns it.

    Returns:
        What the pipeline returns.

    Raises:
        OSError: The image or label file is missing, truncated or not an image.
    """
    try:
        return pipeline(data_info)
    except UNREADABLE as error:
        path = data_info.get('img_path')
        if isinstance(error, LabelFileError):
            raise
        reason = str(error)
        if not reason.startswith(f'{path}: '):
            reason = f'{path}: the image cannot be read ({type(error).__name__}: {error})'
        raise OSError(
            f'{reason}. Replace the file, or take it out of what is read'
        ) from error


class LabelFileError(OSError):
    """A label file that is missing, truncated or not an image."""


class FileSegDataset(BaseSegDataset):
    """Base of the data sets that read one image file, and perhaps one label file, per item.

    It reports unreadable files by name and shows ``classes`` and ``palette`` in the attribute ``METAINFO``, where
    mmseg's analysis tools look for them even if they came from the config or from a file.

    Images are read by `LoadImage`, also where the pipeline names mmcv's loader.

    Args:
        turn_images: Turn photos as their EXIF orientation tag says. False: the pixels as they are stored.
        label_orientation: Which form of a photo with such a tag the labels were drawn on: ``'turned'``, as viewers show
            it, ``'stored'``, or ``'auto'``, that of the label's size; both having it is an error. The label gets the
            orientation of the image.
        **kwargs: As for :class:`mmseg.datasets.BaseSegDataset`.

    Raises:
        ValueError: Another ``label_orientation``.
    """

    @ranges()
    def __init__(self, turn_images: bool = True, label_orientation: str = 'auto', **kwargs: Any) -> None:
        if label_orientation not in LABEL_ORIENTATIONS:
            raise ValueError(f'label_orientation={label_orientation!r} is unknown; choose one of {LABEL_ORIENTATIONS}')
        self.turn_images, self.label_orientation = turn_images, label_orientation
        super().__init__(**kwargs)
        self.pipeline.transforms = with_own_loader(self.pipeline.transforms)
        self.METAINFO = dict(classes=self._metainfo.get('classes'), palette=self._metainfo.get('palette'))

    def prepare_data(self, idx: int) -> Any:
        """Load item ``idx``; errors name the file (see :func:`run_pipeline`)."""
        return run_pipeline(self.pipeline, self.get_data_info(idx))

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Paths of item ``idx`` and what the label loader needs to know.

        The latter is the same for all items and is added here, so that the list of a large data set stays small.
        """
        info = super().get_data_info(idx)
        info.update(self._label_settings(), seg_fields=[])
        return info

    def _label_settings(self) -> dict[str, Any]:
        """What `read_label` needs to know beside the paths."""
        return dict(
            label_map=self._value_map(),
            reduce_zero_label=self.reduce_zero_label,
            ignore_index=self.ignore_index,
            num_classes=len(self._metainfo['classes']),
            turn_images=self.turn_images,
            label_orientation=self.label_orientation,
        )

    def _value_map(self) -> dict[int, int] | None:
        """From values on disk to classes; None if they are the same."""
        return self.label_map


def data_item(image: str, label: str | None) -> dict[str, str]:
    """One entry of a data list."""
    return dict(img_path=image) if label is None else dict(img_path=image, seg_map_path=label)
