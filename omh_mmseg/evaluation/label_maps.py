"""Predicted label maps as 8-bit pictures, one per image."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object
from mmengine.logging import MMLogger
from PIL import Image

from omh_mmseg.structures.assignment import UNMATCHED
from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.utils.files import replaced_when_complete

MAX_PNG_VALUE = 255


class LabelMapWriter:
    """Writes ``<image stem>.png`` per image, uint8, and remembers which image owns which name.

    Args:
        folder: Made if absent.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._written: dict[str, str] = {}
        self._painted: set[bool] = set()

    def write(self, sample: Mapping[str, Any], classes: Sequence[int] | np.ndarray | None = None) -> None:
        """Write the ``pred_sem_seg`` of a data sample.

        Args:
            sample: As a dictionary, with ``img_path``.
            classes: Class of each cluster; a pixel without one becomes ``IGNORED_LABEL``. None writes cluster numbers.

        Raises:
            ValueError: A number does not fit into eight bits, or a cluster is beyond ``classes``; names the image.
        """
        path = sample['img_path']
        name = self._name(path)
        labels = sample['pred_sem_seg']['data'].squeeze(0).cpu().numpy()
        low, high = labels.min(), labels.max()
        if classes is not None:
            if low < 0 or high >= len(classes):
                raise ValueError(
                    f'{path}: pred_sem_seg has values {low}..{high}, but the assignment has {len(classes)} clusters'
                )
            labels = np.asarray(classes)[labels]
            labels[labels == UNMATCHED] = IGNORED_LABEL
            low, high = labels.min(), labels.max()
        if low < 0 or high > MAX_PNG_VALUE:
            raise ValueError(f'{path}: pred_sem_seg has values {low}..{high}; an 8-bit PNG holds 0..{MAX_PNG_VALUE}')
        with replaced_when_complete(self.folder / name) as file:
            Image.fromarray(labels.astype(np.uint8)).save(file, format='png')
        self._written[name] = str(path)
        self._painted.add(classes is not None)

    def report(self) -> None:
        """Log how many maps lie where and what their values are, over all processes; start afresh."""
        logger = MMLogger.get_current_instance()
        owners: dict[str, str] = {}
        painted: set[bool] = set()
        for written, kinds in all_gather_object((self._written, self._painted)):
            painted |= kinds
            for name, path in written.items():
                if owners.setdefault(name, path) != path:
                    logger.warning(
                        f'{self.folder / name} holds the prediction of only one of {owners[name]} and {path}, '
                        'which two processes wrote: run the test in one process, or give the images different names'
                    )
        classes = f'class numbers ({IGNORED_LABEL} where a cluster has no class)'
        content = classes if painted == {True} else 'cluster numbers'
        logger.info(f'predictions of {len(owners)} images, as {content}, are in {self.folder}')
        self._written, self._painted = {}, set()

    def _name(self, path: str) -> str:
        """``<stem>.png``, or with as many parent folders before it as it takes to be the only one of its name."""
        parts = Path(path).with_suffix('.png').parts
        for length in range(1, len(parts) + 1):
            name = '_'.join(part.strip(os.sep) for part in parts[-length:])
            if self._written.get(name, str(path)) == str(path):
                return name
        raise ValueError(f'{path}: no free name for its prediction in {self.folder}')
