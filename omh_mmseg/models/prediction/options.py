"""What ``model.test_cfg`` may say about predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from omh_mmseg.models.prediction.crf import DenseCRF
from omh_mmseg.structures.assignment import AssignmentSource
from omh_mmseg.utils.checks import POSITIVE, SIZE, options_of
from omh_mmseg.utils.text import did_you_mean

OUTPUT_SIZES = ('original', 'input')
MODES = ('whole', 'slide')
WINDOWS = ('crop_size', 'stride')
RANGES = dict(levels='[1, 32]', crop_size=SIZE, stride=SIZE, alpha=POSITIVE)


@dataclass(frozen=True)
class PredictionOptions:
    """Options of a `Predictor`, read from ``test_cfg``.

    Attributes:
        output_size: ``'original'`` scores and paints at the size of the label (of the image, without one), ``'input'``
            at the size of the network's input.
        levels: OMH levels to predict beside the probe; None for all, ``[]`` for none, at no cost then.
        linear: Whether to predict by the linear probe, where it has learned.
        mode: ``'whole'`` encodes the image at once, ``'slide'`` in overlapping windows whose codes are averaged.
        crop_size: Height and width of a window in pixels.
        stride: Distances of windows in pixels, down and to the right.
        flip: Average the code with that of the mirrored image (docs/methods/evaluation.md 6.3).
        crf: Keywords of `DenseCRF` to refine every prediction at the size of the network's input; None for no CRF.
        alpha: Inverse temperature of the cluster probabilities that the CRF starts from; 2 in the hosts' evaluation
            (docs/methods/evaluation.md 6.4).
        assignment: The classes of the clusters, set by hand; see `ClusterAssignment`, which reads it.
    """

    PART_DEFAULTS: ClassVar = dict(crf=dict(type=DenseCRF))

    output_size: str = 'original'
    levels: tuple[int, ...] | None = None
    linear: bool = True
    mode: str = 'whole'
    crop_size: tuple[int, int] = (0, 0)
    stride: tuple[int, int] = (0, 0)
    flip: bool = False
    crf: Mapping[str, Any] | None = None
    alpha: float = 2.0
    assignment: AssignmentSource | None = None

    @classmethod
    def from_test_cfg(cls, test_cfg: Mapping[str, Any], cell: int) -> PredictionOptions:
        """Read and check the options.

        Args:
            test_cfg: As in the config.
            cell: Pixels per position of the code.

        Raises:
            ValueError: An unknown option or value, or windows that do not lie on the positions of the code or leave
                gaps.
        """
        options, names = dict(test_cfg), list(cls.__dataclass_fields__)
        annotations = {name: cls.__annotations__[name] for name in names} | dict.fromkeys(WINDOWS, 'int | tuple[int]')
        numbers = options_of(annotations, RANGES)
        for key, value in options.items():
            if key not in names:
                raise ValueError(f'test_cfg has no {key}{did_you_mean(key, names)}; it takes {", ".join(names)}.')
            if key in numbers:
                numbers[key].check(f'test_cfg.{key}', value)
        for key, accepted in (('output_size', OUTPUT_SIZES), ('mode', MODES)):
            if options.get(key, accepted[0]) not in accepted:
                raise ValueError(f'test_cfg.{key} must be one of {accepted}; got {options[key]!r}.')
        if options.get('levels') is not None:
            options['levels'] = tuple(options['levels'])
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
    absent = [key for key in WINDOWS if key not in options]
    if absent:
        raise ValueError(
            f"test_cfg.mode 'slide' needs {' and '.join(absent)}, in pixels, e.g. crop_size=(320, 320), "
            'stride=(160, 160).'
        )
    crop, step = (_pair(options[key], key) for key in WINDOWS)
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
    if len(pair) != 2:
        raise ValueError(f'test_cfg.{key} must be one or two numbers; got {value!r}.')
    return int(pair[0]), int(pair[1])
