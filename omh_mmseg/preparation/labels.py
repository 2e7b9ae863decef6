"""Convert a folder of labels in colours to class numbers."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from omh_mmseg.choices import MAX_PIXELS, UNKNOWN_RULES
from omh_mmseg.datasets.class_names import DEFAULT_FILE, read_class_file
from omh_mmseg.datasets.images.listing import images_by_stem
from omh_mmseg.datasets.label_colours import (
    UNKNOWN,
    Colour,
    classes_of_colours,
    colour_table,
    count_colours,
    known_colours,
    parse_colour,
    unknown_colours,
)
from omh_mmseg.datasets.label_files import colours_of, open_label
from omh_mmseg.structures.labels import IGNORED_LABEL
from omh_mmseg.utils.files import replaced_when_complete
from omh_mmseg.utils.progress import progress_bar

MAX_CLASSES = 255
NOTE = 'converted with'
"""Key of the settings in a converted PNG, by which a second call knows its own files."""
# Border colours that data sets use for pixels without a class; the first that no class has is taken.
_IGNORED_COLOURS: tuple[Colour, ...] = ((224, 224, 192), (255, 255, 255), (0, 0, 0))


@dataclass
class LabelConversion:
    """Labels of a folder and what becomes of them.

    Attributes:
        source: The folder, searched recursively.
        out: Where ``<same path>.png`` goes: a palette PNG of class numbers, 255 for no class.
        table: Class by colour.
        palette: RGB of each class in the PNGs.
        unknown: ``'error'``, or ``'ignore'`` to write 255 for colours that are no class.
        tolerance: Largest difference per channel from the colour of a class that is taken for it.
        background: Colour that transparent pixels are put on; None refuses them.
        max_pixels: Larger labels are refused.
        counts: Pixels by unknown colour, as far as the labels are converted.
        affected: Files that have them.
    """

    source: Path
    out: Path
    table: Mapping[Colour, int]
    palette: Sequence[Colour]
    unknown: str = 'error'
    tolerance: int = 0
    background: Colour | None = None
    max_pixels: int = MAX_PIXELS
    counts: Counter[Colour] = field(default_factory=Counter)
    affected: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.unknown not in UNKNOWN_RULES:
            raise ValueError(f'unknown must be one of {UNKNOWN_RULES}, got {self.unknown!r}')
        if self.out.resolve() == self.source.resolve():
            raise ValueError(f'the converted labels would replace those in {self.source}; choose another --out')
        colours = np.array(list(self.table), dtype=int)
        apart = np.abs(colours[:, None] - colours[None]).max(axis=-1)
        limit = int(apart[~np.eye(len(colours), dtype=bool)].min(initial=255) - 1) // 2
        if not 0 <= self.tolerance <= limit:
            raise ValueError(
                f'tolerance must lie in 0..{limit}, got {self.tolerance}: beyond that, a pixel could be near to the '
                'colours of two classes'
            )
        self.files = images_by_stem(self.source)
        if not self.files:
            raise FileNotFoundError(f'no pictures in {self.source}')

    def run(self, write: bool = True, workers: int = 4, progress: bool = True) -> int:
        """Convert the labels, those that are there already excepted.

        Args:
            write: False only counts the unknown colours.
            workers: Threads.
            progress: Draw a progress bar on stderr.

        Returns:
            Number of labels that were converted.

        Raises:
            FileExistsError: ``out`` holds pictures of these names that are not of this command.
            ValueError: Colours are unknown, their pixels counted over all files; those without any are written. Or a
                label has transparent pixels or a format that changes values.
            OSError: A label cannot be read, or ``out`` cannot be written.
        """
        if workers < 1:
            raise ValueError(f'workers must be at least 1, got {workers}')
        self.counts.clear()
        self.affected.clear()
        targets = {stem: self.out / f'{stem}.png' for stem in self.files}
        pending = [stem for stem, path in targets.items() if not self._done(stem, path)]
        with progress_bar(progress) as bar, ThreadPoolExecutor(workers) as pool:
            task = bar.add_task('labels', total=len(pending))
            results = pool.map(lambda stem: self._convert(stem, targets[stem], write), pending)
            try:
                for stem, counts in zip(pending, results):
                    self.counts.update(counts)
                    self.affected += [self.files[stem]] if counts else []
                    bar.advance(task)
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        if self.counts and self.unknown == 'error':
            raise ValueError(
                f'{self.source}: {self.report_unknown()}; {known_colours(self.table)}. The other '
                f'{len(self.files) - len(self.affected)} labels are {"converted" if write else "fine"}. Give these '
                'colours to a class or to --ignored, take the nearest class with --tolerance N, or write '
                f'{IGNORED_LABEL} for them with --unknown ignore'
            )
        return len(pending)

    def report_unknown(self) -> str:
        """The unknown colours that were met, with pixels and files; empty without any."""
        if not self.counts:
            return ''
        files = f'{len(self.affected)} of {len(self.files)} labels, first {self.affected[0]}'
        return f'{unknown_colours(dict(self.counts.most_common()))}, in {files}'

    def _convert(self, stem: str, target: Path, write: bool) -> dict[Colour, int]:
        path = self.files[stem]
        image = open_label(path, self.tolerance > 0, self.max_pixels)
        if self.background is not None and 'A' in image.getbands():
            ground = Image.new('RGBA', image.size, (*self.background, 255))
            image = Image.alpha_composite(ground, image.convert('RGBA')).convert('RGB')
        pixels = colours_of(image, path)
        classes = classes_of_colours(pixels, self.table)
        if self.tolerance:
            self._take_nearest(pixels, classes)
        counts = count_colours(pixels[classes == UNKNOWN])
        if write and not (counts and self.unknown == 'error'):
            classes[classes == UNKNOWN] = IGNORED_LABEL
            picture = Image.fromarray(classes.astype(np.uint8), mode='P')
            picture.putpalette(self._flat_palette())
            note = PngInfo()
            note.add_text(NOTE, self._settings())
            with replaced_when_complete(target) as file:
                picture.save(file, 'PNG', pnginfo=note)
        return counts

    def _take_nearest(self, pixels: np.ndarray, classes: np.ndarray) -> None:
        """Fill in classes of pixels whose colour lies within the tolerance of a known one."""
        for colour, number in self.table.items():
            near = np.abs(pixels.astype(np.int16) - np.array(colour, np.int16)).max(axis=-1) <= self.tolerance
            classes[near & (classes == UNKNOWN)] = number

    def _done(self, stem: str, target: Path) -> bool:
        """Whether the target is what would be written, from the settings in it and from its time."""
        if not target.is_file():
            return False
        with Image.open(target) as image:
            settings = image.info.get(NOTE)
        if settings is None:
            raise FileExistsError(f'{target} exists and was not made by this command; choose another --out')
        return settings == self._settings() and os.path.getmtime(target) >= os.path.getmtime(self.files[stem])

    def _settings(self) -> str:
        return repr((sorted(self.table.items()), self.unknown, self.tolerance, self.background))

    def _flat_palette(self) -> list[int]:
        ignored = [colour for colour, number in self.table.items() if number == IGNORED_LABEL]
        taken = set(self.table) | set(self.palette)
        fill = (ignored or [colour for colour in _IGNORED_COLOURS if colour not in taken] or [_IGNORED_COLOURS[0]])[0]
        colours = [*self.palette, *[fill] * (IGNORED_LABEL + 1 - len(self.palette))]
        return [channel for colour in colours for channel in colour]


def plan_labels(
    source: Path,
    out: Path,
    classes: Path | None = None,
    colours: Sequence[str] = (),
    ignored: Sequence[str] = (),
    **options: Any,
) -> LabelConversion:
    """What converts a folder, from colours that the user gave.

    Args:
        source: The folder of labels.
        out: Folder for the converted ones.
        classes: File with names and colours, see `read_class_file`; by default ``classes.json`` in ``source`` or one of
            the two folders above it.
        colours: ``'#rrggbb'`` of each class in order, in place of a file.
        ignored: ``'#rrggbb'`` of what belongs to no class.
        **options: See `LabelConversion`.

    Raises:
        FileNotFoundError: There is no such folder or file.
        ValueError: Both or neither are given, or colours are wrong.
    """
    if not source.is_dir():
        raise FileNotFoundError(f'there is no folder {source}')
    if classes is not None and colours:
        raise ValueError('give --classes or --colours, not both')
    if colours:
        names: Sequence[str] = [f'class_{number}' for number in range(len(colours))]
        given: Any = list(colours)
        origin = '--colours'
    else:
        near = [folder / DEFAULT_FILE for folder in (source, *source.absolute().parents[:2])]
        found = classes or next((path for path in near if path.is_file()), None)
        if found is None:
            raise FileNotFoundError(
                f"which colour is which class? There is no {DEFAULT_FILE} in {source} or above it; give --classes FILE "
                "or --colours '#rrggbb' ..."
            )
        file, origin = read_class_file(found), str(found)
        names, given = file.classes, file.label_colours or file.palette
        if not given:
            raise ValueError(f'{found} has no colours: give "palette" or "label_colours", or use --colours')
    if len(names) > MAX_CLASSES:
        raise ValueError(f'labels are stored in 8 bits, with 255 for no class; {len(names)} classes do not fit')
    table = colour_table(given, names, origin)
    for text in ignored:
        colour = parse_colour(text)
        if table.setdefault(colour, IGNORED_LABEL) != IGNORED_LABEL:
            raise ValueError(f'--ignored {text} is the colour of a class')
    shown = {number: colour for colour, number in reversed(table.items())}
    palette = [shown.get(number, (0, 0, 0)) for number in range(len(names))]
    return LabelConversion(source, out, table, palette, **options)
