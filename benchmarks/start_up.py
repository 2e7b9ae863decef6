"""Processor time of what users wait for before anything is computed: the help of commands, and imports.

    python benchmarks/start_up.py

Each runs in an interpreter of its own, all of them in turn, over and over; the time is that of the processor, which
other processes disturb less than the time on the clock. Of a command it includes the start of the interpreter; of an
import it is what comes after the import of what it needs, where that is named.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from common import Benchmark, Question, Rows, Verdict

REPOSITORY = Path(__file__).resolve().parents[1]
IMPORTS = {
    'nothing': ('pass', 'pass'),
    'torch': ('pass', 'import torch'),
    'the transport after torch and POT': ('import torch, ot', 'import omh_mmseg.transport'),
    "mmseg's models": ('pass', 'import mmseg.models'),
    'omh_mmseg': ('pass', 'import omh_mmseg'),
    "all parts after mmseg's models": ('import mmseg.models', 'import omh_mmseg.models'),
}
"""What comes before, and what is timed."""
TIMED = 'import time\n{before}\nbegan = time.process_time()\n{statement}\nprint(time.process_time() - began)'
MOST = {'the transport after torch and POT': 0.2, 'omh_mmseg': 1.0}
"""Seconds that an import may take; that of the package without those of mmseg, of which it needs nothing."""


def start_up(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """Statements and commands, in turn."""
    statements = {
        name: ['-c', TIMED.format(before=before, statement=statement)]
        for name, (before, statement) in IMPORTS.items() if name in args.imports
    }  # fmt: skip
    tools = sorted((REPOSITORY / 'tools').rglob('*.py'))
    statements |= {f'{tool.relative_to(REPOSITORY)} --help': [str(tool), '--help'] for tool in tools[: args.commands]}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in statements}
    for _ in range(args.repeats):
        for name, words in statements.items():
            times[name].append(run(words))
    rows: Rows = [
        dict(what=name, cpu_s=round(statistics.median(cpu), 3), wall_s=round(statistics.median(wall), 3))
        for name, (cpu, wall) in ((name, zip(*measured)) for name, measured in times.items())
    ]
    return rows, judge({row['what']: row['cpu_s'] for row in rows})


def run(words: list[str]) -> tuple[float, float]:
    """Processor and wall seconds of a fresh interpreter; the former as it says itself, where it does."""
    environment = {**os.environ, 'PYTHONPATH': str(REPOSITORY), 'OMP_NUM_THREADS': '1'}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return float(done.stdout.split()[-1]) if words[0] == '-c' else cpu, time.perf_counter() - began


def judge(cpu: dict[str, float]) -> list[Verdict]:
    """The requirements whose statements were measured."""
    verdicts = []
    helps = {name: seconds for name, seconds in cpu.items() if name.endswith('--help')}
    if helps and 'torch' in cpu:
        slowest = max(helps, key=helps.__getitem__)
        figure = f'{helps[slowest]:.2f} s ({slowest}) against {cpu["torch"]:.2f} s'
        verdicts.append(Verdict('the help of every command is faster than import torch', figure,
                                helps[slowest] < cpu['torch']))  # fmt: skip
    for name, most in MOST.items():
        if name in cpu:
            holds = cpu[name] <= most
            verdicts.append(Verdict(f'import of {name} takes at most {most} s', f'{cpu[name]:.2f} s', holds))
    return verdicts


main = Benchmark(
    __file__,
    __doc__,
    {
        '': Question(
            start_up,
            'Processor time before anything is computed',
            repeats=5,
            options=dict(imports=list(IMPORTS), commands=99),
            quick=dict(repeats=2, commands=3),
            choices=dict(imports=list(IMPORTS)),
        )
    },
)

if __name__ == '__main__':
    main()
