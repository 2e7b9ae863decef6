"""Evaluation protocols by name: what the literature's scores were taken with (docs/methods/evaluation.md 6.2)."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Protocol:
    """How images are prepared, predicted and scored.

    Attributes:
        name: As it is asked for and reported.
        side: Shorter side of the network's input in pixels; None keeps the config's own resize.
        crop: Whether the centre square alone is predicted and scored.
        flip: Average the codes of the image and its mirror image.
        crf: Refine with the dense CRF, at the constants of docs/methods/evaluation.md 6.5.
        label_size: ``'resized'``: labels are resized like the image (nearest) and scored there; ``'original'``:
            predictions are upsampled to the labels.
        interpolation: Of the image's resize, with ``side``.
        mode: ``'whole'`` or ``'slide'``; the latter takes images as they are, in windows.
        crop_size: Side of a window in pixels, with ``'slide'``.
        stride: Distance of windows in pixels, with ``'slide'``.
        alpha: Inverse temperature of the cluster probabilities that the CRF starts from.
        upsampling: What is upsampled to the scored size, and how.
        matching: Of clusters to classes, over the whole scored set; the linear probe needs none.
        temporal: Whether frames of a video are also scored by how steady the predictions are.
    """

    name: str
    side: int | None = 320
    crop: bool = True
    flip: bool = True
    crf: bool = True
    label_size: str = 'resized'
    interpolation: str = 'nearest'
    mode: str = 'whole'
    crop_size: int = 320
    stride: int = 160
    alpha: float = 2.0
    upsampling: str = 'code, bilinear'
    matching: str = 'hungarian'
    temporal: bool = False

    def settings(self) -> dict[str, Any]:
        """Plain data of all that applies, for reports."""
        settings = asdict(self)
        if self.mode == 'whole':
            del settings['crop_size'], settings['stride']
        if not self.temporal:
            del settings['temporal']
        if self.side is None:
            settings.pop('interpolation')
            settings['side'] = 'of the image' if self.mode == 'slide' else 'of the config'
        return settings

    def describe(self) -> str:
        """One line for people."""
        listed = ', '.join(f'{key}={value}' for key, value in self.settings().items() if key != 'name')
        return f'protocol {self.name}: {listed}'


PRESETS = {
    'stego': Protocol('stego'),
    'hp': Protocol('hp', flip=False),
    'smooseg': Protocol('smooseg'),
    'eagle': Protocol('eagle', alpha=4.0),
    'primaps': Protocol('primaps', interpolation='bilinear'),
    'mmseg': Protocol('mmseg', side=None, crop=False, flip=False, crf=False, label_size='original'),
    'video': Protocol(
        'video', side=None, crop=False, flip=False, crf=False, label_size='original', temporal=True
    ),
}  # fmt: skip
"""``stego``, ``smooseg``, ``eagle``, ``primaps``: the evaluation scripts; ``hp``: its final evaluation; ``mmseg``: the
full image at the size of its label, as users of mmseg score; ``video``: the same, and how steady predictions are from
frame to frame."""

_NAME = re.compile(r'(?P<preset>[a-z]+)(?P<side>-\d+)?(?P<options>(-no-crf|-no-flip|-slide)*)')


def known_protocols() -> str:
    """What `resolve` accepts, for messages."""
    return (
        f'{", ".join(PRESETS)}, each with -no-crf, -no-flip, a side in pixels such as -224; mmseg with -slide. '
        'Examples: stego-no-crf, stego-no-crf-no-flip, smooseg-224, mmseg-slide'
    )


def resolve(name: str, crf: bool = True, flip: bool = True) -> Protocol:
    """The protocol of a name.

    Args:
        name: A preset, then optionally ``-<side>``, ``-no-crf``, ``-no-flip`` and ``-slide``.
        crf: False like ``-no-crf``.
        flip: False like ``-no-flip``.

    Raises:
        ValueError: Unknown; lists the known.
    """
    match = _NAME.fullmatch(name)
    if match is None or match['preset'] not in PRESETS:
        raise ValueError(f'there is no protocol {name!r}; known are {known_protocols()}.')
    preset = PRESETS[match['preset']]
    changes: dict[str, Any] = {}
    if match['side']:
        changes['side'] = int(match['side'][1:])
        if changes['side'] < 1:
            raise ValueError(f'the side of protocol {name!r} must be at least 1 pixel.')
    if not crf or '-no-crf' in match['options']:
        changes['crf'] = False
    if not flip or '-no-flip' in match['options']:
        changes['flip'] = False
    if '-slide' in match['options']:
        if preset.crop:
            raise ValueError(f'protocol {name!r}: {preset.name} scores the centre square, which no window slides over.')
        changes['mode'] = 'slide'
    changed = replace(preset, **changes)
    parts = [match['preset'], str(changed.side) if match['side'] else '']
    parts += ['no-crf' if preset.crf and not changed.crf else '', 'no-flip' if preset.flip and not changed.flip else '']
    parts += ['slide' if changed.mode == 'slide' else '']
    return replace(changed, name='-'.join(part for part in parts if part))
