"""Images and labels in MATLAB files, the form in which IIC and STEGO keep Potsdam."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import scipy.io
from mmengine.fileio import BaseStorageBackend, register_backend
from PIL import Image

SUFFIX = '.mat'
IMAGE_KEY = 'img'
LABEL_KEY = 'gt'
MAGIC = b'MATLAB 5.0 MAT-file'


def is_mat(content: bytes) -> bool:
    """Whether a file is a MATLAB file, by its first bytes."""
    return content.startswith(MAGIC)


def read_mat(path: str | os.PathLike[str], key: str) -> np.ndarray:
    """One array of a MATLAB file.

    Args:
        path: The file.
        key: Name of the array.

    Raises:
        OSError: The file is missing, damaged or not a MATLAB file (version 5).
        ValueError: It has no array of that name; the message lists those that it has.
    """
    try:
        arrays = scipy.io.loadmat(path, variable_names=[key])
        names = [name for name, *_ in scipy.io.whosmat(path)] if key not in arrays else []
    except FileNotFoundError:
        raise
    except Exception as error:  # scipy raises many kinds, from zlib.error to its own, for one reason: damage
        raise OSError(f'{path} is damaged or not a MATLAB 5 file ({type(error).__name__}: {error})') from error
    if key not in arrays:
        raise ValueError(f'{path} has no array {key!r}; its arrays are {sorted(names) or "none"}')
    return arrays[key]


def read_mat_image(path: str | os.PathLike[str], key: str = IMAGE_KEY) -> np.ndarray:
    """The colours of an image in a MATLAB file.

    Args:
        path: The file.
        key: Name of the array, uint8 (H, W, 3 or more): red, green, blue, then channels that are dropped.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        OSError: The file cannot be read.
        ValueError: It has no such array, or of another shape or type.
    """
    image = read_mat(path, key)
    if image.ndim != 3 or image.shape[2] < 3 or image.dtype != np.uint8:
        raise ValueError(
            f'{path}: the image {key!r} must be uint8 with the shape (height, width, 3 or more), it is {image.dtype} '
            f'{image.shape}'
        )
    return np.ascontiguousarray(image[:, :, :3])


@register_backend('mat_image')
class MatImageBackend(BaseStorageBackend):
    """Lets everything that reads image files by mmengine read ``.mat`` files too; other files are left as they are.

    ``backend_args=dict(backend='mat_image')`` in ``LoadImageFromFile`` and in ``SegVisualizationHook``, so that
    pipelines keep the loader that mmseg's inferencer looks for. A file becomes an uncompressed BMP in memory.

    Args:
        key: Name of the array, see :func:`read_mat_image`.
    """

    def __init__(self, key: str = IMAGE_KEY) -> None:
        self.key = key

    def get(self, filepath: str | Path) -> bytes:
        """The file as the bytes of an image file."""
        if Path(filepath).suffix != SUFFIX:
            return Path(filepath).read_bytes()
        encoded = io.BytesIO()
        Image.fromarray(read_mat_image(filepath, self.key)).save(encoded, 'BMP')
        return encoded.getvalue()

    def get_text(self, filepath: str | Path, encoding: str = 'utf-8') -> str:
        """The file as text."""
        return Path(filepath).read_text(encoding=encoding)
