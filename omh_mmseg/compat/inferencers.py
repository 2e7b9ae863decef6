"""Upstream breakage of the inference interfaces."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock


def draw_pictures_by(reader_of: Callable[[Sequence[Any]], Any]) -> None:
    """Let ``MMSegInferencer`` draw on pictures as its pipeline has read them.

    Range: every mmsegmentation, whose ``visualize`` reads the file by itself and takes arrays as they are. Symptoms:
    16-bit pictures are drawn black, others are a ``TypeError``, arrays with blue first swap red and blue, tensors and
    Pillow images are refused after they were segmented.

    Args:
        reader_of: The reader (see `omh_mmseg.datasets.images.reader.ImageReader`) of the transforms of a pipeline; None
            where these have none of ours, and mmseg draws as ever.
    """
    from mmseg.apis import mmseg_inferencer as module

    inferencer: Any = module.MMSegInferencer
    original = getattr(inferencer.visualize, '__wrapped__', inferencer.visualize)

    @functools.wraps(original)
    def visualize(self: Any, inputs: Sequence[Any], *args: Any, **options: Any) -> Any:
        reader = reader_of(self.pipeline.transforms)
        if reader is None or inputs is None:
            return original(self, inputs, *args, **options)
        shown = [picture if isinstance(picture, str) else reader.read(picture).rgb for picture in inputs]
        # What it reads files with: the names of files stay those of the pictures.
        reading = SimpleNamespace(fileio=SimpleNamespace(get=reader.as_bmp))
        with mock.patch.object(module, 'mmengine', reading):
            return original(self, shown, *args, **options)

    inferencer.visualize = visualize
