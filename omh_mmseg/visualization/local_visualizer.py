"""mmseg's visualiser for predictions that cover only a part of the image, or more clusters than classes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import mmcv
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import master_only
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer

from omh_mmseg.registry import VISUALIZERS
from omh_mmseg.structures.assignment import CLUSTERS, META_KEY
from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.utils.config import check_settings
from omh_mmseg.visualization.colours import distinct_colours

UNNAMED = 'unnamed_clusters'
"""Key of the metadata of a field that holds clusters without classes."""


@VISUALIZERS.register_module()
class UnsupervisedSegVisualizer(SegLocalVisualizer):
    """``SegLocalVisualizer`` that brings the image to the prediction, and colours any number of clusters.

    The protocols of docs/methods/data.md 5.6 resize the shorter side and cut out the centre, and predict at that size,
    while mmseg's visualisation hook reads the image from its file. Where the sizes differ, the image goes through the
    same resize (``scale_factor`` of the data sample) and crop (``crop_bbox``, else the centre) before it is drawn on;
    without ``scale_factor`` it is stretched to the size of the prediction. Cluster numbers beyond the class names are
    drawn as ``cluster <number>``, and a data set without names or palette with numbers and generated colours.

    A prediction whose metadata tell the classes of its clusters (``cluster_classes``, see `ClusterAssignment`) is drawn
    in classes, like the labels; pixels of a cluster without a class get no colour, like those without a label. Where
    they tell that nothing is known of the clusters, each is ``cluster <number>``, in the colours of `predict_images`.

    Takes the arguments of mmseg's class.
    """

    def add_config(self, config: Config, **kwargs: Any) -> None:
        """Record a run's config. It is the first of our parts to see it, before model and data sets are built.

        Raises:
            ValueError: Some parts of it are out of date; see `check_settings`.
        """
        check_settings(config)
        super().add_config(config, **kwargs)

    @master_only
    def add_datasample(
        self,
        name: str,
        image: np.ndarray,
        data_sample: SegDataSample | None = None,
        draw_gt: bool = True,
        draw_pred: bool = True,
        **kwargs: Any,
    ) -> None:
        """Draw a data sample as mmseg does, after matching the sizes.

        Args:
            name: Name of the picture.
            image: RGB uint8 (H, W, 3), as read from its file.
            data_sample: With ``pred_sem_seg`` and/or ``gt_sem_seg``.
            draw_gt: Draw the labels, on the left.
            draw_pred: Draw the prediction, on the right.
            **kwargs: mmseg's ``show``, ``wait_time``, ``out_file``, ``step``, ``with_labels``, ``with_image``. An
                ``out_file`` with the ending of no image format (a Potsdam patch has ``.mat``) gets ``.png``.
        """
        out_file = kwargs.get('out_file')
        if out_file and not cv2.haveImageWriter(str(out_file)):
            kwargs['out_file'] = f'{os.path.splitext(out_file)[0]}.png'
        meta = self.dataset_meta or {}
        # mmseg refuses None; empty ones are completed for the labels at hand in `_draw_sem_seg`.
        classes, palette = meta.get('classes') or (), meta.get('palette') or []
        self.dataset_meta: dict[str, Any] = {**meta, 'classes': classes, 'palette': palette}
        if data_sample is not None:
            fields = dict(pred_sem_seg=draw_pred, gt_sem_seg=draw_gt)
            drawn = [field for field, draw in fields.items() if draw and field in data_sample]
            if 'pred_sem_seg' in drawn:
                data_sample = _in_classes(data_sample)
            if drawn:
                size = tuple(data_sample.get(drawn[0]).data.shape[-2:])
                image = fit_image(image, size, data_sample.metainfo)
                data_sample = _with_size(data_sample, drawn, size)
        super().add_datasample(name, image, data_sample, draw_gt, draw_pred, **kwargs)

    def _draw_sem_seg(
        self,
        image: np.ndarray,
        sem_seg: PixelData,
        classes: Sequence[str],
        palette: Sequence[Sequence[int]],
        with_labels: bool | None = True,
    ) -> np.ndarray:
        labels = torch.as_tensor(sem_seg.data).cpu()
        if sem_seg.metainfo.get(UNNAMED):
            classes, palette = (), ()
        known = labels[(labels != IGNORED_LABEL) & (labels >= 0)]
        count = max(len(classes), int(known.max()) + 1 if known.numel() else 0)
        classes = [*classes, *(f'cluster {number}' for number in range(len(classes), count))]
        palette = [*palette, *distinct_colours(count)[len(palette) :].tolist()]
        # Negative labels would take the last class's colour.
        visible = PixelData(data=torch.where(labels < 0, torch.full_like(labels, count), labels.long()))
        return super()._draw_sem_seg(image, visible, classes, palette, with_labels)

    def _get_center_loc(self, mask: np.ndarray) -> np.ndarray:
        # The same place as mmseg's, without sorting all pixels as Python lists (seconds for a large image).
        row = int(np.count_nonzero(mask, axis=1).argmax())
        columns = np.flatnonzero(mask[row])
        return np.array([columns[len(columns) // 2], row])


def fit_image(image: np.ndarray, size: tuple[int, int], metainfo: Mapping[str, Any]) -> np.ndarray:
    """Bring an image to the part and size that a prediction shows.

    Args:
        image: (H, W, 3), as read from its file.
        size: (height, width) of the prediction.
        metainfo: Of the data sample: ``scale_factor`` (w, h) of the resize and ``crop_bbox`` (left, top, right, bottom)
            in pixels of the resized image, both optional.

    Returns:
        (height, width, 3). ``image`` itself where the size is right already.
    """
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    scale = metainfo.get('scale_factor')
    if scale is not None:
        resized_width, resized_height = round(image.shape[1] * scale[0]), round(image.shape[0] * scale[1])
        left, top = round((resized_width - width) / 2), round((resized_height - height) / 2)
        box = metainfo.get('crop_bbox')
        if box is not None and (box[3] - box[1], box[2] - box[0]) == (height, width):
            left, top = int(box[0]), int(box[1])
        if 0 <= left <= resized_width - width and 0 <= top <= resized_height - height:
            resized = mmcv.imresize(image, (resized_width, resized_height))
            return np.ascontiguousarray(resized[top : top + height, left : left + width])
    return mmcv.imresize(image, (width, height))


def _in_classes(data_sample: SegDataSample) -> SegDataSample:
    """Classes in place of the cluster numbers of ``pred_sem_seg``, in a copy, or the note that they have none."""
    known = data_sample.metainfo.get(META_KEY)
    if known is None or CLUSTERS in known:
        return data_sample
    data_sample = data_sample.clone()
    if 'pred_sem_seg' not in known:
        data_sample.pred_sem_seg = PixelData(metainfo={UNNAMED: True}, data=data_sample.pred_sem_seg.data)
        return data_sample
    table = torch.as_tensor(known['pred_sem_seg'])
    clusters = torch.as_tensor(data_sample.pred_sem_seg.data).cpu().long()
    data_sample.pred_sem_seg = PixelData(data=table[clusters])
    return data_sample


def _with_size(data_sample: SegDataSample, fields: Sequence[str], size: tuple[int, int]) -> SegDataSample:
    """Resize those fields that have another size to the nearest label, in a copy."""
    differing = [field for field in fields if tuple(data_sample.get(field).data.shape[-2:]) != size]
    if not differing:
        return data_sample
    data_sample = data_sample.clone()
    for field in differing:
        labels = torch.as_tensor(data_sample.get(field).data).cpu()
        labels = labels.reshape(1, 1, *labels.shape[-2:])
        resized = torch.nn.functional.interpolate(labels.float(), size=size, mode='nearest-exact')[0].long()
        kept = PixelData(metainfo=data_sample.get(field).metainfo, data=resized)
        data_sample.set_field(kept, field, dtype=PixelData, field_type='data')
    return data_sample
