"""Run the benchmarks and say for each requirement whether it holds.

    python benchmarks/run_all.py                          # all of them, about 40 minutes on two processors
    python benchmarks/run_all.py --quick                  # fewer repeats, smaller batches, fewer items: ten minutes
    python benchmarks/run_all.py --only evaluation_crf reading_cache

Each writes its CSV file; ``requirements_<machine>.csv`` holds what was required, with what earlier runs of others found
on that machine. The exit status is 1 where a requirement does not hold or a benchmark fails. ``gpu_rate`` runs where
there is a GPU.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from common import Rows, Verdict, add_common_options, start, write_csv

SCRIPTS = (
    'steps', 'cached_steps', 'cache_cost', 'photos', 'step_share', 'plan_time', 'lean_forms', 'neighbour_search',
    'reading', 'evaluation', 'start_up', 'start_checks', 'floors', 'demo_stages', 'gpu_rate', 'eagle', 'proposals',
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run them; 0 if every requirement holds."""
    benchmarks = [importlib.import_module(name).main for name in SCRIPTS]
    questions = {one.file_of(name): (one, name) for one in benchmarks for name in one.questions}
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_common_options(options, repeats=None, device='cpu')
    options.add_argument('--only', choices=questions, nargs='+', metavar='NAME', help=f'some of {", ".join(questions)}')
    args = options.parse_args(argv)
    environment = start(args)
    given = ['--out-dir', str(args.out_dir), '--threads', str(environment['threads'])]
    given += ['--machine', environment['machine'], *(['--quick'] if args.quick else [])]
    given += ['--repeats', str(args.repeats)] if args.repeats else []
    rows: Rows = []
    for key in args.only or questions:
        benchmark, name = questions[key]
        device = benchmark.questions[name].device
        if device == 'cuda' and not (args.only or torch.cuda.is_available()):
            continue
        print(f'== {key}', flush=True)
        more = ['--device', args.device] if device == 'cpu' else []
        for verdict in run(key, benchmark, [*filter(None, [name]), *given, *more]):
            rows.append(dict(script=key, **vars(verdict)))
    print('== requirements')
    print(*(Verdict(**{name: row[name] for name in ('requirement', 'figure', 'holds')}) for row in rows), sep='\n')
    keep_requirements(rows, environment, args.out_dir)
    return 0 if all(row['holds'] for row in rows) else 1


def run(key: str, benchmark: Any, given: Sequence[str]) -> list[Verdict]:
    """The verdicts of a benchmark; its failure is a requirement that does not hold, so that the others still run."""
    try:
        return benchmark(given)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        return [Verdict(f'{key} runs', f'{type(error).__name__}: {error}'.splitlines()[0], False)]


def keep_requirements(rows: Rows, environment: Mapping[str, Any], folder: Path) -> None:
    """Write what was required, behind what earlier runs found of other benchmarks."""
    path = folder / f'requirements_{environment["machine"]}.csv'
    earlier: Rows = []
    if path.is_file():
        with path.open(newline='') as file:
            ran = {row['script'] for row in rows}
            earlier = [row for row in csv.DictReader(file) if row['script'] not in ran]
    if rows or earlier:
        write_csv('requirements', [*earlier, *rows], environment, folder)


if __name__ == '__main__':
    raise SystemExit(main())
