"""What a preparation would do, how it is reported, and how it is carried out."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from omh_mmseg.preparation.downloads.sources import Entry
from omh_mmseg.utils.files import replaced_when_complete
from omh_mmseg.utils.progress import progress_bar


class Job(Protocol):
    """A piece of work whose files appear complete or not at all."""

    def done(self) -> bool:
        """Whether its files are there already."""

    def files(self) -> int:
        """How many files it makes."""

    def run(self) -> None:
        """Make those that are not."""


@dataclass(frozen=True)
class Transfer:
    """One file of the user's at its place in the layout.

    Attributes:
        entry: The file.
        target: Its place.
        copy: Copy a file on disk instead of linking to it; what lies in an archive is extracted in any case.
    """

    entry: Entry
    target: Path
    copy: bool = False

    @property
    def links(self) -> bool:
        """Whether a link is made rather than a copy."""
        return self.entry.archive is None and not self.copy

    def done(self) -> bool:
        """A file of the same size is at the target."""
        try:
            return self.target.stat().st_size == self.entry.size
        except FileNotFoundError:
            return False

    def files(self) -> int:
        """One."""
        return 1

    def run(self) -> None:
        """Link, copy or extract.

        Raises:
            OSError: The file is damaged or cannot be written.
        """
        if not self.links:
            with self.entry.open() as source, replaced_when_complete(self.target) as file:
                shutil.copyfileobj(source, file)
            return
        self.target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.target.parent, prefix='.link-') as folder:
            link = Path(folder, self.target.name)
            link.symlink_to(self.entry.path)
            os.replace(link, self.target)


@dataclass(frozen=True)
class WriteText:
    """A small text file.

    Attributes:
        target: Its place.
        text: Its content.
    """

    target: Path
    text: str

    def done(self) -> bool:
        """The file is there with this content."""
        return self.target.is_file() and self.target.read_text(encoding='utf-8') == self.text

    def files(self) -> int:
        """One."""
        return 1

    def run(self) -> None:
        """Write it."""
        with replaced_when_complete(self.target) as file:
            file.write(self.text.encode())


@dataclass(frozen=True)
class Count:
    """How much of something was found.

    Attributes:
        what: What was counted.
        number: How many.
        expected: How many the complete data set has, None where that is not known.
    """

    what: str
    number: int
    expected: int | None = None

    def __str__(self) -> str:
        if self.expected is None:
            return f'{self.number:>9,}  {self.what}'
        remark = 'as expected' if self.number == self.expected else f'EXPECTED {self.expected:,}'
        return f'{self.number:>9,}  {self.what} ({remark})'


@dataclass
class Plan:
    """What there is, what is missing, and what would be made.

    Attributes:
        dataset: Name of the data set.
        out: Folder below which everything is written: the ``data_root`` of the configs.
        counts: What was found.
        missing: What the user must add, with the remedy, one sentence each. The rest can be made without it.
        notes: What the user should know.
        jobs: What makes the layout.
    """

    dataset: str
    out: Path
    counts: list[Count] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    jobs: list[Job] = field(default_factory=list)

    def pending(self) -> list[Job]:
        """The jobs that are not done."""
        return [job for job in self.jobs if not job.done()]

    def report(self, pending: Sequence[Job]) -> str:
        """Several lines of text for the user.

        Args:
            pending: What :meth:`pending` returned.
        """
        files = sum(job.files() for job in pending)
        links = sum(isinstance(job, Transfer) and job.links for job in pending)
        written = sum(job.entry.size for job in pending if isinstance(job, Transfer) and not job.links)
        what = [f'{links:,} links' if links else '', f'{files - links:,} files' if files > links else '']
        made = ' and '.join(filter(None, what)) or 'nothing'
        size = f' ({written / 2**30:.2f} GiB copied or extracted)' if written else ''
        return '\n'.join(
            [
                f'{self.dataset}, found:',
                *(f'  {count}' for count in self.counts),
                *(f'missing: {text}' for text in self.missing),
                *(f'note: {text}' for text in self.notes),
                f'to be made below {self.out.absolute()}: {made}{size}; there already: '
                f'{sum(job.files() for job in self.jobs) - files:,}',
            ]
        )


def run_jobs(jobs: Sequence[Job], workers: int = 4, progress: bool = True) -> None:
    """Run jobs side by side. What an interruption leaves is complete, and a second run goes on from there.

    Args:
        jobs: The jobs.
        workers: Number of threads.
        progress: Draw a progress bar on stderr.

    Raises:
        ValueError: ``workers`` is not positive.
        Exception: What a job raised; those that have not begun are left out then.
    """
    if workers < 1:
        raise ValueError(f'workers must be at least 1, got {workers}')
    with progress_bar(progress) as bar, ThreadPoolExecutor(workers) as pool:
        task = bar.add_task('preparing', total=sum(job.files() for job in jobs))
        try:
            for job, _ in zip(jobs, pool.map(lambda job: job.run(), jobs)):
                bar.advance(task, job.files())
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
