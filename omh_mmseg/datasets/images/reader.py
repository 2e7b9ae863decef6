"""The one reader of images: whatever shows or segments a picture has its pixels from here."""

from __future__ import annotations

import functools
import io
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias
from unittest import mock

import mmengine.fileio as fileio
import numpy as np
import torch
from mmengine.logging import MMLogger
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from omh_mmseg.choices import MAX_PIXELS
from omh_mmseg.datasets.images.deep import (
    INSTALL,
    as_meant,
    decode_deep,
    grey_range,
    has_deep_colours,
    is_cut,
    is_tiff,
    tiff_header,
)
from omh_mmseg.datasets.images.depth import Range, chosen_bands, colours, known_range, rgb, to_bytes
from omh_mmseg.datasets.images.orientation import orientation_tag, turn, turn_back
from omh_mmseg.datasets.mat_files import IMAGE_KEY, is_mat, read_mat, read_mat_image
from omh_mmseg.utils.checks import COUNT, options_of

Picture: TypeAlias = str | os.PathLike[str] | np.ndarray | Tensor | Image.Image
_OPTIONS = options_of(
    dict(value_range='Sequence[float] | None', bands='int | Sequence[int] | None', max_pixels='int'),
    dict(bands='[0, 65535]', max_pixels=COUNT),
)
_guard = threading.RLock()


class Pixels(NamedTuple):
    """A picture as it was read.

    Attributes:
        rgb: uint8 (H, W, 3).
        orientation: EXIF tag of its file, 1 without one.
    """

    rgb: np.ndarray
    orientation: int


class Header(NamedTuple):
    """What a file says of its picture before it is decoded.

    Attributes:
        height: As stored, in pixels.
        width: Likewise.
        orientation: EXIF tag.
    """

    height: int
    width: int
    orientation: int

    def size(self, turned: bool) -> tuple[int, int]:
        """(height, width) as stored or turned."""
        return (self.width, self.height) if turned and self.orientation >= 5 else (self.height, self.width)


@dataclass(frozen=True)
class ImageReader:
    """Reads files, arrays, tensors and Pillow images as 8-bit colours.

    Values of more than 8 bits become 8-bit ones linearly, from ``value_range`` where it is set, else from 0..65535 for
    16 bits without sign (0..4095 for a TIFF of 12 bits) and from 0..1 for floating-point values. Whatever else has no
    known range, and is an error. 8-bit values are taken as they are. Photos are turned as their EXIF tag says. Of files
    with several pictures the first is read.

    Attributes:
        value_range: Values of black and white, for values of more than 8 bits; those beyond are clipped.
        bands: Positions, from 0, of the bands shown as red, green and blue, or of the one shown in grey. None: the
            first three, of files that have three or four; palettes count as colours.
        max_pixels: Larger pictures are refused before they are decoded.
    """

    value_range: Range | None = None
    bands: int | Sequence[int] | None = None
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        for name, option in _OPTIONS.items():
            option.check(name, getattr(self, name))
        if self.value_range is not None:
            values = tuple(self.value_range)
            if len(values) != 2 or values[0] == values[1]:
                raise ValueError(f'value_range must be the values of black and white, two numbers; got {values}')
            object.__setattr__(self, 'value_range', values)
        if self.bands is not None:
            bands = tuple(self.bands) if isinstance(self.bands, Sequence) else (self.bands,)
            if len(bands) not in (1, 3):
                raise ValueError(f'bands must be one or three positions, counted from 0; got {bands}')
            object.__setattr__(self, 'bands', bands)

    def read(self, picture: Picture, turned: bool = True) -> Pixels:
        """The pixels of a picture.

        Args:
            picture: A path or address; an array (H, W), (H, W, 1) or (H, W, 3), blue first as OpenCV and mmseg have
                it, or, with ``bands``, (H, W, any); a tensor (C, H, W) or (H, W) with C = 1 or 3, red first as
                torchvision has it, or, with ``bands``, any C; or a Pillow image.
            turned: Whether photos are turned as their EXIF tag says.

        Raises:
            FileNotFoundError: No such file.
            OSError: The file is damaged, or no image.
            ValueError: Its values have no known range, its bands no known meaning, it is too large, or the array or
                tensor has another shape.
        """
        if isinstance(picture, np.ndarray):
            return Pixels(self._array(picture), 1)
        if isinstance(picture, Tensor):
            return Pixels(self._tensor(picture), 1)
        if isinstance(picture, Image.Image):
            return self._pillow(picture, None, 'the image', turned)
        if not isinstance(picture, (str, os.PathLike)):
            raise ValueError(
                f'an image must be a path, an array, a tensor or a Pillow image; got {type(picture).__name__}'
            )
        path = os.fspath(picture)
        content = fileio.get(path)
        if is_mat(content):
            if self.bands is None:
                return Pixels(read_mat_image(path), 1)
            values = read_mat(path, IMAGE_KEY)
            return Pixels(self._coloured(values, known_range(values.dtype), None, path), 1)
        with self._opened(content, path) as image:
            if image is None:
                return self._undecoded(content, path, turned)
            with guard_for(image):
                return self._pillow(image, content, path, turned)

    def as_bmp(self, path: str | os.PathLike[str], turned: bool = True) -> bytes:
        """A file as an uncompressed 8-bit BMP, for what decodes images by itself; see `read` for the errors."""
        encoded = io.BytesIO()
        Image.fromarray(self.read(path, turned).rgb).save(encoded, 'BMP')
        return encoded.getvalue()

    def header(self, path: str) -> Header | None:
        """Size and orientation of a file; None where it cannot be read, which is reported when it is loaded."""
        try:
            with without_guard(), Image.open(path) as image:
                tag, tags = orientation_tag(image), getattr(image, 'tag_v2', {})
                # Of TIFFs Pillow tells the size after turning.
                return Header(tags.get(257, image.height), tags.get(256, image.width), tag)
        except (OSError, SyntaxError, ValueError):
            return None

    @contextmanager
    def _opened(self, content: bytes, path: str) -> Iterator[Image.Image | None]:
        """The image, not yet decoded; None for a TIFF that Pillow does not know."""
        try:
            with without_guard():
                image = Image.open(io.BytesIO(content))
        except UnidentifiedImageError as error:
            if not is_tiff(content):
                text = f'{path}: the image cannot be read ({len(content)} bytes of no format that Pillow knows)'
                raise OSError(text) from error
            yield None
            return
        except Exception as error:
            raise _unreadable(path, error) from error
        with image:
            self._check_size(image.height, image.width, path)
            yield image

    def _check_size(self, height: int, width: int, name: str) -> None:
        if height * width > self.max_pixels:
            raise ValueError(
                f'{name}: {width} x {height} pixels are more than max_pixels={self.max_pixels}, which guards against '
                f'files that unpack to more than the memory; raise it, --cfg-options max_pixels={height * width}'
            )

    def _pillow(self, image: Image.Image, content: bytes | None, name: str, turned: bool) -> Pixels:
        """An opened image."""
        # The tag comes last: to look for it Pillow decodes some formats.
        known, tags = grey_range(image), dict(getattr(image, 'tag_v2', {}))
        deep = content is not None and has_deep_colours(image, suspected=self.value_range is not None)
        cut = is_cut(image)
        if getattr(image, 'n_frames', 1) > 1:
            _tell_of_frames(image.format)
        values = None
        try:
            tag = orientation_tag(image)
            if deep and content is not None:
                values = decode_deep(content, len(image.getbands()) if tags else None)
            if values is not None and values.dtype == np.uint8:
                values, deep = None, False
            if values is None:
                image.load()
        except Exception as error:  # decoders raise many kinds, from struct.error to MemoryError, on damaged files
            raise _unreadable(name, error) from error
        if values is not None:
            mode: str | None = image.mode
            if mode == 'LA' and values.ndim == 3 and values.shape[2] == 4:
                values = values[..., [0, 3]]
            result = self._coloured(values, (0, 65535), mode, name)
            pretended = 1
        else:
            if deep and (self.value_range is not None or not cut):
                reason = 'and value_range' if cut else 'that are stored band by band'
                raise ValueError(f'{name}: colours of 16 bits {reason} need another decoder: {INSTALL}')
            # Pillow turns TIFFs itself as it loads them, and takes the tag away.
            pretended = tag if orientation_tag(image) == 1 else 1
            result = self._decoded(image, tags, known, name)
        if pretended != 1:
            return Pixels(result if turned else turn_back(result, tag), tag)
        return Pixels(turn(result, tag) if turned else result, tag)

    def _decoded(self, image: Image.Image, tags: dict, known: Range | None, name: str) -> np.ndarray:
        """Colours of an image that Pillow has decoded."""
        if image.mode in ('F', 'L') or image.mode.startswith('I'):
            values = as_meant(np.asarray(image), tags)
            if values.dtype != np.uint8:
                return self._coloured(values, known, 'L', name)
        try:
            if self.bands is None:
                return rgb(image)
            plain = {'P': 'RGB', 'PA': 'RGBA', '1': 'L'}.get(image.mode)
            values = np.asarray(image if plain is None else image.convert(plain))
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error
        return colours(chosen_bands(values, self.bands, name), None, name)

    def _undecoded(self, content: bytes, path: str, turned: bool) -> Pixels:
        """A TIFF that Pillow does not know."""
        try:
            header = tiff_header(content)
        except OSError as error:
            raise _unreadable(path, error) from error
        self._check_size(header.height, header.width, path)
        if self.bands is None and header.bands not in (1, 3, 4):
            colours(np.empty((1, 1, header.bands), np.uint8), None, path)
        try:
            values = decode_deep(content, header.bands)
        except Exception as error:
            raise _unreadable(path, error) from error
        if values is None:
            raise OSError(f'{path}: a TIFF of {header.bands} bands that Pillow cannot read; {INSTALL}')
        result = self._coloured(values, known_range(values.dtype), None, path)
        return Pixels(turn(result, header.orientation) if turned else result, header.orientation)

    def _array(self, array: np.ndarray) -> np.ndarray:
        channels = array.shape[2] if array.ndim == 3 else 1
        if array.ndim not in (2, 3) or array.size == 0 or (self.bands is None and channels not in (1, 3)):
            raise ValueError(
                f'an array must be uint8 (height, width, 3), blue first; got {array.dtype} {array.shape}. Grey ones '
                '(height, width) will do, other numbers by their range, and other channels where bands is set'
            )
        if self.bands is None and channels == 3:
            array = array[..., ::-1]
        return self._coloured(array, known_range(array.dtype), None, 'the array')

    def _tensor(self, tensor: Tensor) -> np.ndarray:
        channels = len(tensor) if tensor.dim() == 3 else 1
        if tensor.dim() not in (2, 3) or tensor.numel() == 0 or (self.bands is None and channels not in (1, 3)):
            raise ValueError(
                f'a tensor must be (3, height, width), red first; got {tensor.dtype} {tuple(tensor.shape)}. Grey ones '
                '(1, height, width) will do, other numbers by their range, and other channels where bands is set'
            )
        tensor = tensor.detach().cpu()
        array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        array = np.moveaxis(array, 0, -1) if array.ndim == 3 else array
        return self._coloured(array, known_range(array.dtype), None, 'the tensor')

    def _coloured(self, values: np.ndarray, known: Range | None, mode: str | None, name: str) -> np.ndarray:
        if self.bands is not None:
            values, mode = chosen_bands(values, self.bands, name), None
        return colours(to_bytes(values, known, self.value_range, name), mode, name)


@contextmanager
def without_guard() -> Iterator[None]:
    """Leave the decision about large pictures to `ImageReader.max_pixels`."""
    with _guard, mock.patch.object(Image, 'MAX_IMAGE_PIXELS', None):
        yield


def guard_for(image: Image.Image) -> AbstractContextManager:
    """What an opened image is decoded in: `without_guard`, which takes turns, only where it is needed."""
    large = Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > Image.MAX_IMAGE_PIXELS
    return without_guard() if large else nullcontext()


def _unreadable(path: str, error: Exception) -> OSError:
    return OSError(f'{path}: the image cannot be read ({type(error).__name__}: {error})')


@functools.cache
def _tell_of_frames(kind: str | None) -> None:
    MMLogger.get_current_instance().warning(f'of {kind} files with several pictures the first is read')
