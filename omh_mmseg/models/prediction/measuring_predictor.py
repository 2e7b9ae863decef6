"""Predicts, and measures what can be said without labels from the codes that this takes anyway."""

from __future__ import annotations

from typing import Any

from mmseg.structures import SegDataSample
from torch import Tensor

from omh_mmseg.models.prediction.label_free import LabelFreeMeter
from omh_mmseg.models.prediction.predictor import PredictingModel, Predictor, image_size
from omh_mmseg.structures.frozen_inputs import Inputs


class MeasuringPredictor(Predictor):
    """A `Predictor` that shows a meter some of the images that it predicts.

    Of the three passes of `LabelFreeMeter` it spares that of the image and, with flip averaging, that of its mirror
    image.

    Args:
        predictor: How to predict.
        meter: Takes the images into account.
        wanted: Paths of the images to measure. Those that were measured leave the set, so that each counts once.
    """

    def __init__(self, predictor: Predictor, meter: LabelFreeMeter, wanted: set[str]) -> None:
        self.predictor = predictor
        self.options, self.crf = predictor.options, predictor.crf
        self.meter = meter
        self.wanted = wanted
        self._views: list[Tensor] = []

    def encode(self, model: PredictingModel, inputs: Inputs) -> Tensor:
        """See `Predictor.encode`."""
        self._views.append(super().encode(model, inputs))
        return self._views[-1]

    def code(self, model: PredictingModel, inputs: Inputs) -> Tensor:
        """See `Predictor.code`."""
        self._views = []
        return super().code(model, inputs)

    def masks(
        self, model: PredictingModel, code: Tensor, inputs: Inputs, samples: list[SegDataSample]
    ) -> list[SegDataSample]:
        """See `Predictor.masks`; images of which only the features are there are not measured."""
        views, self._views = self._views, []
        for index, sample in enumerate(samples):
            path: Any = sample.metainfo.get('img_path')
            if path in self.wanted and isinstance(inputs, Tensor) and views:
                self.wanted.remove(path)
                one = slice(index, index + 1)
                plain, *mirrored = (view[one] for view in views)
                size = image_size(sample, inputs.shape[-2:])
                self.meter.add(inputs[one], size, plain, mirrored=mirrored[0] if mirrored else None)
        return super().masks(model, code, inputs, samples)
