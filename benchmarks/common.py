"""What the benchmarks share: interleaved timing, peak memory, machine information, CSV files and tables."""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402

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
) -> dict[str, Samples]:
    """Time alternatives in turn, so that a disturbance of the machine meets all of them.

    Args:
        alternatives: By name, a function that prepares fresh inputs (not timed) and returns what is to be timed.
        repeats: Measurements of each.
        warmup: Runs of each that do not count.
        progress: Label of the progress line on a terminal; empty for none.

    Returns:
        The measurements by name.
    """
    samples = {name: Samples() for name in alternatives}
    for turn in range(-warmup, repeats):
        if progress and sys.stderr.isatty():
            print(f'{progress}: run {turn + warmup + 1} of {repeats + warmup}', end='\r', file=sys.stderr, flush=True)
        for name, prepare in alternatives.items():
            run = prepare()
            cpu, wall = time.process_time(), time.perf_counter()
            run()
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            if turn >= 0:
                samples[name].wall.append(wall)
                samples[name].cpu.append(cpu)
    if progress:
        print(f'{progress}: done' + ' ' * 20, file=sys.stderr)
    return samples


def peak_rise(run: Callable[[], object]) -> int:
    """Bytes by which the resident memory of this process rises at its peak while something runs.

    Linux allows the high-water mark to be reset, so that what came before does not hide the rise; elsewhere the rise of
    ``ru_maxrss`` is taken. Meaningful in a fresh process only.
    """
    try:
        Path('/proc/self/clear_refs').write_text('5')
        before = _resident('VmRSS')
        run()
        return _resident('VmHWM') - before
    except OSError:
        unit = 1 if sys.platform == 'darwin' else 1024
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run()
        return unit * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def tensor_peak(run: Callable[[], object]) -> int:
    """Bytes that the tensors made by something occupy at its peak, by torch's profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / 'trace.json'
        profile.export_chrome_trace(str(trace))
        events = [event for event in json.loads(trace.read_text())['traceEvents'] if event.get('name') == '[memory]']
    held = peak = 0
    for event in sorted(events, key=lambda event: event['ts']):
        held += event['args']['Bytes']
        peak = max(peak, held)
    return peak


def measure_apart(script: str, cases: Sequence[Sequence[Any]]) -> list[dict[str, float]]:
    """Measure each case in a process of its own, forked from one that has computed nothing.

    Args:
        script: A benchmark whose option ``--memory-of`` hands its cases to `fork_and_print`.
        cases: Arguments of the measurement, of types that JSON knows.
    """
    # Freed tensors go back to the system at once: the peak is that of live memory, not of the allocator's reserve.
    allocator = dict(MALLOC_MMAP_THRESHOLD_='65536', MALLOC_TRIM_THRESHOLD_='0')
    command = [sys.executable, script, '--memory-of', json.dumps(cases)]
    done = subprocess.run(command, env={**os.environ, **allocator}, capture_output=True, text=True, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]
    if done.returncode or len(results) != len(cases):
        raise RuntimeError(f'Measured the memory of {len(results)} of {len(cases)} cases:\n{done.stderr}')
    return results


def fork_and_print(measure: Callable[..., dict[str, float]], cases: Sequence[Sequence[Any]]) -> None:
    """Print the measurement of each case as one line of JSON."""
    for case in cases:
        child = os.fork()
        if child == 0:
            try:
                print(json.dumps(measure(*case)), flush=True)
            except Exception:
                traceback.print_exc()
            os._exit(0)
        os.waitpid(child, 0)


def _resident(key: str) -> int:
    match = re.search(rf'{key}:\s+(\d+) kB', Path('/proc/self/status').read_text())
    if match is None:
        raise OSError(f'/proc/self/status has no {key}')
    return 1024 * int(match[1])


def parser(description: str | None, repeats: int) -> argparse.ArgumentParser:
    """Options of every benchmark."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument('--repeats', type=positive, default=repeats, help='measurements of each; the median counts')
    result.add_argument('--threads', type=positive, help='threads of torch; default: as many as processors')
    result.add_argument('--out-dir', type=Path, default=RESULTS, help='folder of the CSV file')
    result.add_argument('--machine', help='label in the name of the CSV file; default: processor and threads')
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
    cpu = _processor()
    label = re.sub(r'\((r|tm)\)|processor|cpu|@.*', '', cpu.lower())
    label = re.sub(r'[^a-z0-9]+', '-', label).strip('-') or 'unknown'
    return dict(
        machine=args.machine or f'{label}-{torch.get_num_threads()}threads',
        cpu=cpu,
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
        environment: Result of `start`; its items are added to every row.
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
            writer = csv.DictWriter(file, [*rows[0], *described], lineterminator='\n')
            writer.writeheader()
            writer.writerows([{**row, **described} for row in rows])
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
