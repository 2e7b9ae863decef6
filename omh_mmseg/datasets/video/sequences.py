"""Which frame of which sequence an item is, and which item is its later or earlier frame."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from mmengine.logging import MMLogger

from omh_mmseg.utils.text import first_few

NAMES = r'(?P<sequence>.*?)[/_-]?(?P<frame>[0-9]+)'
"""Names of frames: that of the sequence, then a number; ``0001TP_006690``, ``Seq05VD_f01110``, ``drive/frame12``."""
GROUPS = ('sequence', 'frame')
MISSING = ('split', 'error')
HOLE = 1.5
"""Steps from one frame to the next from which on frames are missing between them."""


@dataclass(frozen=True)
class FrameInfo:
    """Where a frame is, as it stands in the description of an item.

    Attributes:
        sequence: Name of the run of frames without a hole that it belongs to.
        frame: Its number.
        place: In the run, from 0.
        seconds: Since the beginning; None where the speed is not known.
    """

    sequence: str
    frame: int
    place: int
    seconds: float | None

    def as_info(self) -> dict[str, Any]:
        """Keys of `get_data_info`."""
        return asdict(self)


def frame_infos(
    names: Sequence[str], pattern: str = NAMES, fps: float | None = None, missing: str = 'split'
) -> list[FrameInfo]:
    """What the names of frames say.

    Neighbouring numbers of a sequence differ by its step, the most common difference (the smallest of several). Where
    they differ by one and a half steps or more, frames are missing: a new run begins there, so that nothing is compared
    across the hole.

    Args:
        names: Without the ending, with folders by ``/``.
        pattern: Regular expression with the groups ``sequence`` and ``frame``.
        fps: Frames per second that the numbers count.
        missing: ``'split'``, or ``'error'`` for a ValueError where frames are missing.

    Raises:
        ValueError: A name does not fit the pattern, two frames have one number, or frames are missing.
    """
    expression = frame_pattern(pattern)
    found = [expression.fullmatch(name) for name in names]
    strange = [name for name, match in zip(names, found) if match is None]
    if strange:
        raise ValueError(
            f'{len(strange)} names tell no sequence and frame by the pattern {pattern!r}: {first_few(strange)}. Set '
            "pattern to a regular expression with the groups 'sequence' and 'frame'"
        )
    by_sequence: dict[str, dict[int, int]] = defaultdict(dict)
    for place, match in enumerate(found):
        assert match is not None
        if match['sequence'] is None or not re.fullmatch('[0-9]+', match['frame'] or ''):
            raise ValueError(
                f"{names[place]}: by the pattern {pattern!r} its sequence is {match['sequence']!r} and its frame "
                f"{match['frame']!r}; both must be found, and a frame is a number"
            )
        frames, number = by_sequence[match['sequence']], int(match['frame'])
        if number in frames:
            raise ValueError(f'{names[frames[number]]} and {names[place]} are both frame {number} of one sequence')
        frames[number] = place
    infos: dict[int, FrameInfo] = {}
    holes: list[str] = []
    for sequence, frames in by_sequence.items():
        numbers = sorted(frames)
        step, run, place = usual_step(numbers), 0, -1
        for before, number in zip([None, *numbers], numbers):
            place += 1
            if before is not None and number - before >= HOLE * step:
                run, place = run + 1, 0
                holes.append(f'{names[frames[before]]} to {names[frames[number]]}')
            # Two slashes are in no name of a file.
            name = sequence if not run else f'{sequence}//{run}'
            infos[frames[number]] = FrameInfo(name, number, place, None if fps is None else number / fps)
    if holes and missing == 'error':
        raise ValueError(f"frames are missing: {first_few(holes)}. Add them, or set missing='split'")
    if holes:
        MMLogger.get_current_instance().warning(
            f'frames are missing in {len(holes)} places, where new sequences begin: {first_few(holes)}'
        )
    return [infos[place] for place in range(len(names))]


def frame_pattern(pattern: str) -> re.Pattern[str]:
    """The regular expression for names of frames.

    Raises:
        ValueError: It is none, or lacks a group.
    """
    try:
        expression = re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(f'pattern={pattern!r} is no regular expression: {error}') from error
    lacking = [name for name in GROUPS if name not in expression.groupindex]
    if lacking:
        raise ValueError(
            f'pattern={pattern!r} lacks the groups {", ".join(lacking)}: write (?P<sequence>...) and (?P<frame>...), '
            f'as in {NAMES!r}'
        )
    return expression


def usual_step(numbers: Sequence[int]) -> int:
    """Most common difference of neighbouring numbers, the smallest of several; 1 of a single number."""
    differences = Counter(after - before for before, after in zip(numbers, numbers[1:]))
    most = max(differences.values(), default=0)
    return min((step for step, count in differences.items() if count == most), default=1)


class FrameOrder:
    """Finds the frames before and after an item.

    Args:
        dataset: With descriptions of `FrameInfo`'s keys.

    Raises:
        ValueError: Its items are no frames of sequences.
    """

    def __init__(self, dataset: Any) -> None:
        infos = [dataset.get_data_info(item) for item in range(len(dataset))]
        if any('sequence' not in info for info in infos):
            raise ValueError(
                f'{type(dataset).__name__} has no sequences of frames: take VideoFolder in place of FolderSegDataset, '
                'or MovingScenes in place of DemoScenes'
            )
        self._frames = [FrameInfo(**{field.name: info[field.name] for field in fields(FrameInfo)}) for info in infos]
        self._longest = max((frame.place for frame in self._frames), default=0)
        self._items = {(frame.sequence, frame.place): item for item, frame in enumerate(self._frames)}

    def __getitem__(self, item: int) -> FrameInfo:
        return self._frames[item]

    def at(self, item: int, gap: int) -> int | None:
        """The item that many frames later, below 0 earlier; None where the sequence has none."""
        frame = self._frames[item]
        return self._items.get((frame.sequence, frame.place + gap))

    def partners(self, gap: int) -> list[int]:
        """For each item the one that many frames later, else earlier, else as far from it as there is one.

        A frame that is alone is its own partner, and one warning says how many are.

        Raises:
            ValueError: All frames are alone.
        """
        partners = [self._partner(item, gap) for item in range(len(self._frames))]
        alone = [str(frame) for item, frame in enumerate(self._frames) if partners[item] == item]
        if alone and len(alone) == len(partners):
            raise ValueError(
                f'no frame has another one of its sequence to be paired with: {first_few(alone)}. Check the pattern of '
                'the names; a single frame is no video'
            )
        if alone:
            MMLogger.get_current_instance().warning(
                f'{len(alone)} frames are alone in their sequence and are paired with themselves: {first_few(alone)}'
            )
        return partners

    def _partner(self, item: int, gap: int) -> int:
        for distance in range(min(gap, self._longest), 0, -1):
            for other in (self.at(item, distance), self.at(item, -distance)):
                if other is not None:
                    return other
        return item
