"""What the benchmarks share: options, interleaved timing, peak memory, machine information, CSV files and tables."""

from __future__ import annotations

import argparse
import csv
import datetime
import io
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
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
from mmengine.logging import MMLogger  # noqa: E402

import omh_mmseg  # noqa: E402, F401  its workarounds go before any import of an mm package
from omh_mmseg.utils.files import replaced_when_complete  # noqa: E402

RESULTS = REPOSITORY / 'benchmarks' / 'results'
LEVEL_SIZES = (27, 54, 108)
CODE_CHANNELS = 70
POSITIONS_PER_IMAGE = 28 * 28
ADAM_STEP = 5e-3
MIB = 2**20
GIB = 2**30


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

    def per_step(self, steps: int) -> Samples:
        """The same of one out of as many steps in a row."""
        return Samples([seconds / steps for seconds in self.wall], [seconds / steps for seconds in self.cpu])

    def times(self) -> dict[str, float]:
        """The columns ``wall_ms`` and ``cpu_ms``."""
        return dict(wall_ms=round(self.wall_ms, 2), cpu_ms=round(self.cpu_ms, 2))


@dataclass(frozen=True)
class Verdict:
    """Whether a requirement holds."""

    requirement: str
    figure: str
    holds: bool

    def __str__(self) -> str:
        return f'{"holds" if self.holds else "FAILS"}: {self.requirement}: {self.figure}'


Rows = list[dict[str, Any]]
# For `interleave`: prepares fresh inputs, which is not timed, and returns what is.
Prepared = Callable[[], Callable[[], object]]


@dataclass(frozen=True)
class Question:
    """What one CSV file answers.

    Attributes:
        measure: From the options to the rows of the file and what was required of them.
        title: Of the printed table.
        repeats: Measurements of each by default.
        options: Further options by name, with their defaults; a list takes several values.
        quick: What ``--quick`` sets instead.
        choices: What an option accepts, by name.
        device: Default of ``--device``; empty for what runs on processors alone.
        apart: What measures a case in a process of its own, see `measure_apart`.
    """

    measure: Callable[[argparse.Namespace], tuple[Rows, list[Verdict]]]
    title: str
    repeats: int
    options: Mapping[str, Any]
    quick: Mapping[str, Any]
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    device: str = ''
    apart: Callable[..., Mapping[str, Any]] | None = None


@dataclass(frozen=True)
class Benchmark:
    """A script with one or several questions, each with a command of its own.

    Attributes:
        script: Its file.
        description: Its docstring.
        questions: By name; a single one may be called ``''`` and needs no command.
    """

    script: str
    description: str | None
    questions: Mapping[str, Question]

    def __call__(self, argv: Sequence[str] | None = None) -> list[Verdict]:
        """Measure what the command line asks for, print the table and the verdicts, write the CSV file."""
        argv = sys.argv[1:] if argv is None else list(argv)
        raw = argparse.RawDescriptionHelpFormatter
        top = argparse.ArgumentParser(description=self.description, formatter_class=raw, allow_abbrev=False)
        commands = None if '' in self.questions else top.add_subparsers(required=True, metavar='|'.join(self.questions))
        for name, question in self.questions.items():
            about = dict(help=question.title, description=question.measure.__doc__, allow_abbrev=False)
            parser = top if commands is None else commands.add_parser(name, **about)
            _add_options(parser, question, quick='--quick' in argv)
            parser.set_defaults(command=[sys.executable, self.script, *filter(None, [name])], question=name)
        args = top.parse_args(argv)
        question = self.questions[args.question]
        if args.apart is not None:
            _measure_here(question.apart, json.loads(args.apart))
            return []
        environment = start(args)
        args.machine = environment['machine']
        rows, verdicts = question.measure(args)
        show(question.title, rows)
        path = write_csv(self.file_of(args.question), rows, environment, args.out_dir)
        print(*verdicts, f'written: {path}', sep='\n')
        return verdicts

    def file_of(self, question: str) -> str:
        """How the name of a question's CSV file begins."""
        return '_'.join(filter(None, [Path(self.script).stem, question]))


def add_common_options(parser: argparse.ArgumentParser, repeats: int | None, device: str) -> None:
    """The options of every benchmark."""
    parser.add_argument('--repeats', type=whole, default=repeats, help='measurements of each; the median counts')
    parser.add_argument('--threads', type=whole, help='threads of torch; default: as many as processors')
    parser.add_argument('--out-dir', type=Path, default=RESULTS, help='folder of the CSV file')
    parser.add_argument('--machine', help='label in the name of the CSV file; default: processor and threads')
    parser.add_argument('--quick', action='store_true', help='fewer repeats, smaller batches, fewer items')
    if device:
        parser.add_argument('--device', default=device, help=f'where to compute: cpu, cuda, cuda:1; default: {device}')


def _add_options(parser: argparse.ArgumentParser, question: Question, quick: bool) -> None:
    add_common_options(parser, question.repeats, question.device)
    parser.add_argument('--apart', help=argparse.SUPPRESS)
    for name, default in question.options.items():
        flag, several = f'--{name.replace("_", "-")}', isinstance(default, list)
        if isinstance(default, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, default=default)
            continue
        example = default[0] if several else default
        kind = Path if example is None else whole if isinstance(example, int) and example else type(example)
        shown = f'default: {" ".join(map(str, default)) if several else default}'
        accepted = dict(type=kind, nargs='+' if several else None, choices=question.choices.get(name))
        parser.add_argument(flag, default=default, help=shown, **accepted)
    if quick:
        parser.set_defaults(**question.quick)


def whole(text: str) -> int:
    """An integer of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f'must be at least 1; got {value}')
    return value


def interleave(
    alternatives: Mapping[str, Prepared],
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
    """Write ``<name>_<machine>.csv``, complete or not at all.

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
    described = {key: value for key, value in environment.items() if key != 'machine'}
    text = io.StringIO(newline='')
    writer = csv.DictWriter(text, list(dict.fromkeys([*rows[0], *described])), lineterminator='\n')
    writer.writeheader()
    writer.writerows([{**described, **row} for row in rows])
    with replaced_when_complete(path) as file:
        file.write(text.getvalue().encode())
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


def rise_on(device: torch.device | str, run: Callable[[], object]) -> int:
    """Bytes by which the peak of a device's memory rises while something runs: of the allocator on a GPU."""
    device = torch.device(device)
    if device.type != 'cuda':
        return peak_rise(run)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def measure_apart(args: argparse.Namespace, cases: Sequence[Sequence[Any]], hold: bool = False) -> Rows:
    """Measure each case in a process of its own, forked from one that has computed nothing.

    Args:
        args: Options of a question that says how a case is measured (``apart``).
        cases: Arguments of the measurement, of types that JSON knows.
        hold: Whether the allocator may hold freed memory, as it does by default, which is faster. Without it the peak
            is that of live memory, not of the allocator's reserve.
    """
    # A process that has asked the CUDA runtime for devices cannot fork others that use them; NVML may be asked.
    settings = dict(PYTORCH_NVML_BASED_CUDA_CHECK='1')
    if not hold:
        settings |= dict(MALLOC_MMAP_THRESHOLD_='65536', MALLOC_TRIM_THRESHOLD_='0')
    command = [*args.command, '--apart', json.dumps(cases)]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]
    if done.returncode or len(results) != len(cases):
        raise RuntimeError(f'{command[1:-2]} measured {len(results)} of {len(cases)} cases apart:\n{done.stderr}')
    return results


def _measure_here(measure: Callable[..., Mapping[str, Any]] | None, cases: Sequence[Sequence[Any]]) -> None:
    """Print the figures of each case as a line of JSON, out of a forked process."""
    if measure is None:
        raise SystemExit('--apart: nothing of this question is measured apart')
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
