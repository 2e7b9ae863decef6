"""What the benchmarks share: options, interleaved timing, machine information, CSV files and tables."""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402
from mmengine.logging import MMLogger  # noqa: E402

import omh_mmseg  # noqa: E402, F401  its workarounds go before any import of an mm package

RESULTS = REPOSITORY / 'benchmarks' / 'results'
LEVEL_SIZES = (27, 54, 108)
CODE_CHANNELS = 70
POSITIONS_PER_IMAGE = 28 * 28
ADAM_STEP = 5e-3


@dataclass
class Samples:
    """Repeated measurements of one alternative, in seconds."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def wall_ms(self) -> float:
        """Median wall-clock time in milliseconds."""
        return 1e3 * statistics.median(self.wall)

    @property
    def cpu_ms(self) -> float:
        """Median processor time of all threads in milliseconds; other processes disturb it less."""
        return 1e3 * statistics.median(self.cpu)


@dataclass(frozen=True)
class Verdict:
    """Whether a requirement holds."""

    requirement: str
    figure: str
    holds: bool


def interleave(
    alternatives: Mapping[str, Callable[[], Callable[[], object]]],
    repeats: int,
    warmup: int = 1,
    progress: str = '',
    device: torch.device | str = 'cpu',
) -> dict[str, Samples]:
    """Time alternatives in turn, so that a disturbance of the machine meets all of them.

    Args:
        alternatives: By name, a function that prepares fresh inputs (not timed) and returns what is to be timed.
        repeats: Measurements of each.
        warmup: Runs of each that do not count.
        progress: Label of the progress line on a terminal; empty for none.
        device: Whose work to wait for before and after each measurement.

    Returns:
        The measurements by name.
    """
    samples = {name: Samples() for name in alternatives}
    for turn in range(-warmup, repeats):
        if progress and sys.stderr.isatty():
            print(f'{progress}: run {turn + warmup + 1} of {repeats + warmup}', end='\r', file=sys.stderr, flush=True)
        for name, prepare in alternatives.items():
            run = prepare()
            synchronise(device)
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            synchronise(device)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if turn >= 0:
                samples[name].wall.append(wall)
                samples[name].cpu.append(cpu)
    if progress:
        print(f'{progress}: done' + ' ' * 20, file=sys.stderr)
    return samples


def synchronise(device: torch.device | str) -> None:
    """Wait until a device has done what it was asked to; processors do it at once."""
    if torch.device(device).type == 'cuda':
        torch.cuda.synchronize(device)


def parser(description: str | None, repeats: int, device: bool = False) -> argparse.ArgumentParser:
    """Options of every benchmark; ``--device`` where it makes sense."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument('--repeats', type=positive, default=repeats, help='measurements of each; the median counts')
    result.add_argument('--threads', type=positive, help='threads of torch; default: as many as processors')
    result.add_argument('--out-dir', type=Path, default=RESULTS, help='folder of the CSV file')
    result.add_argument('--machine', help='label in the name of the CSV file; default: processor and threads')
    if device:
        result.add_argument('--device', default='cpu', help='where to compute: cpu, cuda, cuda:1; default: cpu')
    return result


def positive(text: str) -> int:
    """An integer of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1; got {value}')
    return value


def start(args: argparse.Namespace) -> dict[str, Any]:
    """Set the threads and describe machine and versions: the columns that end every row of a CSV file."""
    torch.set_num_threads(args.threads or os.cpu_count() or 1)
    # What the library logs would stand between the lines of the table.
    MMLogger.get_current_instance().setLevel('ERROR')
    cpu, gpu = _processor(), _gpu(getattr(args, 'device', 'cpu'))
    label = re.sub(r'\((r|tm)\)|processor|cpu|@.*', '', (gpu or cpu).lower())
    label = re.sub(r'[^a-z0-9]+', '-', label).strip('-') or 'unknown'
    return dict(
        machine=args.machine or (label if gpu else f'{label}-{torch.get_num_threads()}threads'),
        cpu=cpu,
        gpu=gpu,
        threads=torch.get_num_threads(),
        load=round(os.getloadavg()[0], 1),
        python=platform.python_version(),
        torch=torch.__version__,
        pot=metadata.version('pot'),
        commit=_commit(),
        date=datetime.date.today().isoformat(),
    )


def write_csv(name: str, rows: Sequence[Mapping[str, Any]], environment: Mapping[str, Any], folder: Path) -> Path:
    """Write ``<name>_<machine>.csv`` atomically.

    Args:
        name: Name of the benchmark.
        rows: Rows of the same columns.
        environment: Result of `start`; its items are added to every row that does not have them.
        folder: Made if absent.

    Returns:
        Path of the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{name}_{environment["machine"]}.csv'
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    described = {key: value for key, value in environment.items() if key != 'machine'}
    try:
        with temporary.open('w', newline='') as file:
            columns = list(dict.fromkeys([*rows[0], *described]))
            writer = csv.DictWriter(file, columns, lineterminator='\n')
            writer.writeheader()
            writer.writerows([{**described, **row} for row in rows])
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def show(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows as a table: numbers to the right, text to the left."""
    cells = [list(rows[0])] + [
        [f'{value:.4g}' if isinstance(value, float) else str(value) for value in row.values()] for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells)]
    left = [isinstance(value, str) for value in rows[0].values()]
    print(title)
    for line in cells:
        padded = [cell.ljust(width) if text else cell.rjust(width) for cell, width, text in zip(line, widths, left)]
        print('  '.join(padded).rstrip())


def show_verdicts(verdicts: Sequence[Verdict]) -> None:
    """Print what was required, what was measured and whether it holds."""
    for verdict in verdicts:
        print(f'{"holds" if verdict.holds else "FAILS"}: {verdict.requirement}: {verdict.figure}')


def finish(
    name: str,
    title: str,
    rows: Sequence[Mapping[str, Any]],
    environment: Mapping[str, Any],
    args: argparse.Namespace,
    verdicts: Sequence[Verdict] = (),
) -> list[Verdict]:
    """End a benchmark: print its table and what was required, and write the CSV file.

    Args:
        name: Name of the benchmark.
        title: Of the printed table.
        rows: Rows of the same columns.
        environment: Result of `start`.
        args: Options, of which ``out_dir`` is the folder of the file.
        verdicts: What was required of it.

    Returns:
        The verdicts.
    """
    show(title, rows)
    path = write_csv(name, rows, environment, args.out_dir)
    show_verdicts(verdicts)
    print(f'written: {path}')
    return list(verdicts)


def times(samples: Samples) -> dict[str, float]:
    """The columns ``wall_ms`` and ``cpu_ms``."""
    return dict(wall_ms=round(samples.wall_ms, 2), cpu_ms=round(samples.cpu_ms, 2))


def gains(rows: Sequence[Mapping[str, Any]], forms: int, figures: Sequence[str]) -> dict[str, list[float]]:
    """By how many times the first form of each case is ahead of the best of the others.

    Args:
        rows: Rows of the forms of each case, the library's own first.
        forms: How many forms each case has.
        figures: Columns, of which less is better.
    """
    result: dict[str, list[float]] = {figure: [] for figure in figures}
    for index in range(0, len(rows), forms):
        own, *others = rows[index : index + forms]
        for figure, values in result.items():
            values.append(min(other[figure] for other in others) / max(own[figure], 1e-3))
    return result


def span(values: Sequence[float]) -> str:
    """``1.2 to 3.4 times``."""
    return f'{min(values):.1f} to {max(values):.1f} times'


def _gpu(device: str) -> str:
    """Name of the GPU that a benchmark runs on; empty where it runs on the processor."""
    if torch.device(device).type != 'cuda':
        return ''
    if not torch.cuda.is_available():
        raise SystemExit(f'--device {device} asks for a GPU, and torch {torch.__version__} sees none.')
    return torch.cuda.get_device_name(device)


def _processor() -> str:
    try:
        match = re.search(r'model name\s*:\s*(.+)', Path('/proc/cpuinfo').read_text())
    except OSError:
        match = None
    return match[1].strip() if match else platform.processor() or platform.machine()


def _commit() -> str:
    """Short commit of the measured code, with a + where that code has changes; empty outside a git checkout."""
    try:
        git = ('git', '-C', str(REPOSITORY))
        commit = subprocess.run([*git, 'rev-parse', '--short', 'HEAD'], capture_output=True, text=True, check=True)
        measured = ('omh_mmseg', 'benchmarks/*.py')
        changed = subprocess.run([*git, 'diff', '--quiet', 'HEAD', '--', *measured], check=False).returncode
        return commit.stdout.strip() + ('+' if changed else '')
    except (OSError, subprocess.CalledProcessError):
        return ''
