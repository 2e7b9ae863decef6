"""What ``model.test_cfg`` may say about predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omh_mmseg.models.prediction.crf import DenseCRF

OUTPUT_SIZES = ('original', 'input')
MODES = ('whole', 'slide')


@dataclass(frozen=True)
class PredictionOptions:
    """Options of a `Predictor`, read from ``test_cfg``.

    Attributes:
        output_size: ``'original'`` scores and paints at the size of the label (of the image, without one), ``'input'``
            at the size of the network's input.
        levels: OMH levels to predict beside the probe; None for all, ``[]`` for none, at no cost then.
        mode: ``'whole'`` encodes the image at once, ``'slide'`` in overlapping windows whose codes are averaged.
        crop_size: Height and width of a window in pixels.
        stride: Distances of windows in pixels, down and to the right.
        flip: Average the code with that of the mirrored image (docs/methods/evaluation.md 6.3).
        crf: Keywords of `DenseCRF` to refine every prediction at the size of the network's input; None for no CRF.
        alpha: Inverse temperature of the cluster probabilities that the CRF starts from; 2 in the hosts' evaluation
            (docs/methods/evaluation.md 6.4).
    """

    output_size: str = 'original'
    levels: tuple[int, ...] | None = None
    mode: str = 'whole'
    crop_size: tuple[int, int] = (0, 0)
    stride: tuple[int, int] = (0, 0)
    flip: bool = False
    crf: Mapping[str, Any] | None = None
    alpha: float = 2.0

    @classmethod
    def from_test_cfg(cls, test_cfg: Mapping[str, Any], cell: int) -> PredictionOptions:
        """Read and check the options.

        Args:
            test_cfg: As in the config. Keys of other parts of the model are left alone.
            cell: Pixels per position of the code.

        Raises:
            ValueError: An unknown value, or windows that do not lie on the positions of the code or leave gaps.
        """
        options = {key: value for key, value in test_cfg.items() if key in cls.__dataclass_fields__}
        for key, accepted in (('output_size', OUTPUT_SIZES), ('mode', MODES)):
            if options.get(key, accepted[0]) not in accepted:
                raise ValueError(f'test_cfg.{key} must be one of {accepted}; got {options[key]!r}.')
        if options.get('levels') is not None:
            options['levels'] = tuple(options['levels'])
        if not options.get('alpha', 1.0) > 0:
            raise ValueError(f'test_cfg.alpha must be above 0; got {options["alpha"]}.')
        if options.get('mode') == 'slide':
            options |= _windows(options, cell)
        return cls(**options)

    def build_crf(self) -> DenseCRF | None:
        """The CRF that is asked for.

        Raises:
            ImportError: Its back end is not installed; names the extra.
            ValueError: An unknown keyword or a number out of range.
        """
        if self.crf is None:
            return None
        try:
            return DenseCRF(**self.crf)
        except TypeError as error:
            raise ValueError(
                f'test_cfg.crf must be None or keywords of DenseCRF; got {dict(self.crf)} ({error}).'
            ) from error


def _windows(options: Mapping[str, Any], cell: int) -> dict[str, tuple[int, int]]:
    absent = [key for key in ('crop_size', 'stride') if key not in options]
    if absent:
        raise ValueError(
            f"test_cfg.mode 'slide' needs {' and '.join(absent)}, in pixels, e.g. crop_size=(320, 320), "
            'stride=(160, 160).'
        )
    crop, step = (_pair(options[key], key) for key in ('crop_size', 'stride'))
    if any(side % cell for side in (*crop, *step)):
        raise ValueError(
            f'test_cfg.crop_size {crop} and stride {step} must be multiples of {cell}, the pixels of a position of '
            'the code.'
        )
    if step[0] > crop[0] or step[1] > crop[1]:
        raise ValueError(f'windows of test_cfg.crop_size {crop} at a stride of {step} leave gaps; lower the stride.')
    return dict(crop_size=crop, stride=step)


def _pair(value: int | Sequence[int], key: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f'test_cfg.{key} must be one or two numbers of at least 1; got {value!r}.')
    return int(pair[0]), int(pair[1])
