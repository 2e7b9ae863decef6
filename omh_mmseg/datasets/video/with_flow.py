"""Frames with the flow to the one before, for the scores of a video."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.structures import PixelData

from omh_mmseg.datasets.video.frame_flow import FrameFlow, source_of
from omh_mmseg.datasets.video.sequences import FrameOrder
from omh_mmseg.datasets.wrapper import DatasetWrapper, positive_index
from omh_mmseg.registry import DATASETS
from omh_mmseg.structures.temporal import FLOW_BEFORE, SECONDS, SEQUENCE
from omh_mmseg.utils.checks import ranges


@DATASETS.register_module()
class FramesWithFlow(DatasetWrapper):
    """Item i with the flow to the frame before it, at the size of the files, and what time has passed.

    The protocol ``video`` puts it around the test set; `UnsupervisedIoUMetric` then scores how steady predictions are.
    The first frame of a sequence has no flow.

    Args:
        dataset: The wrapped data set of frames, built or as a config, in the order of its frames.
        flow: Config of an estimator, see `FrameFlow`.
        lazy_init: Leave :meth:`full_init` to the first access.

    Raises:
        ValueError: No data set of frames, or frames of two sizes in a sequence.
    """

    wraps_cache = True
    extra_views = 0
    reads_images = True

    @ranges()
    def __init__(
        self,
        dataset: BaseDataset | DatasetWrapper | dict,
        flow: Mapping[str, Any] | None = None,
        lazy_init: bool = False,
    ) -> None:
        self.flow = flow
        super().__init__(dataset, lazy_init)

    def _after_init(self) -> None:
        source = source_of(self.dataset)
        self.order = FrameOrder(source)
        self.frame_flow = FrameFlow(source, None if self.flow is None else dict(self.flow))

    def get_data_info(self, idx: int) -> dict:
        """Description of the frame."""
        return self.dataset.get_data_info(positive_index(idx, len(self)))

    def __getitem__(self, idx: int) -> dict:
        idx = positive_index(idx, len(self))
        item, before, here = self.dataset[idx], self.order.at(idx, -1), self.order[idx]
        if isinstance(item['data_samples'], list):
            raise ValueError(
                'the scores of a video are not made with test-time augmentation (--tta); to average with the mirrored '
                'image, set model.test_cfg.flip=True'
            )
        seconds = None
        if before is not None:
            if before != idx - 1:
                raise ValueError(
                    f'{self.get_data_info(idx)["img_path"]} does not come right after the frame before it, which '
                    'scores of a video need; take the data set as it is, without a choice of indices'
                )
            item['data_samples'].set_data({FLOW_BEFORE: PixelData(data=self.frame_flow.between(idx, before))})
            earlier = self.order[before].seconds
            seconds = None if here.seconds is None or earlier is None else here.seconds - earlier
        item['data_samples'].set_metainfo({SEQUENCE: here.sequence, SECONDS: seconds})
        return item

    def __repr__(self) -> str:
        return f'{type(self).__name__}(flow={self.frame_flow})'
