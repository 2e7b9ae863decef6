"""Run the benchmarks, say for each requirement whether it holds, and sum up.

    python benchmarks/run_all.py                          # all of them, about 40 minutes on two processors
    python benchmarks/run_all.py --quick                  # fewer repeats, smaller batches, fewer items: ten minutes
    python benchmarks/run_all.py --only crf evaluation

Each writes its CSV file; ``requirements_<machine>.csv`` holds what was required, and ``summary.json`` the ratios of
STEGO's step to the references' manner, from that machine's latest ``reference_step``. The exit status is 1 where a
requirement does not hold or a benchmark fails. ``gpu_rate`` runs where there is a GPU.
"""

from __future__ import annotations

import csv
import importlib
import json
import traceback
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from common import Verdict, parser, show_verdicts, start, write_csv
from reference_step import LIVE, omh_overhead

from omh_mmseg.utils.files import replaced_when_complete

QUICK: dict[str, list[str]] = dict(
    reference_step=['--repeats', '1', '--batch-sizes', '4', '--images', '16'],
    host_steps=[
        '--repeats', '1', '--batch', '2', '--batch-sizes', '2', '4', '8', '--image-sizes', '160', '224',
        '--classes', '27', '81', '--levels', '3', '5', '--images', '8',
    ],
    step_share=['--repeats', '1', '--part-repeats', '3', '--batch-sizes', '16', '--variants', 'default'],
    plan_time=['--repeats', '2', '--gradients', 'detach', '--dtypes', 'float64'],
    lean_matching=['--repeats', '2', '--batch-sizes', '16'],
    smoothness_energy=['--repeats', '1', '--sides', '28', '--channels', '384'],
    hidden_positive_loss=['--repeats', '1', '--lean-batch-sizes', '16'],
    neighbour_search=['--repeats', '2', '--items', '100000'],
    feature_cache=['--repeats', '1', '--count', '16'],
    loader=['--repeats', '1', '--count', '16', '--workers', '0', '2'],
    evaluation=['--repeats', '2', '--sizes', '320x320'],
    crf=['--repeats', '1', '--sizes', '320x320'],
    gpu_rate=['--repeats', '2'],
)  # fmt: skip
ON_DEVICE = ('reference_step', 'host_steps', 'step_share', 'feature_cache', 'loader')
STACK = (('onedl-mmengine', 'mmengine'), ('onedl-mmcv', 'mmcv'), ('onedl-mmsegmentation', 'mmsegmentation'),
         ('onedl-mmpretrain', 'mmpretrain'))  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run them; 0 if every requirement holds."""
    options = parser(__doc__, repeats=1, device=True)
    options.set_defaults(repeats=None)
    options.add_argument('--quick', action='store_true', help='fewer repeats, smaller batches, fewer items')
    options.add_argument('--only', choices=QUICK, nargs='+', metavar='NAME', help=f'some of {", ".join(QUICK)}')
    args = options.parse_args(argv)
    environment = start(args)
    common = ['--out-dir', str(args.out_dir), '--threads', str(environment['threads'])]
    common += ['--machine', environment['machine']]
    names = args.only or [name for name in QUICK if name != 'gpu_rate' or torch.cuda.is_available()]
    rows: list[dict[str, Any]] = []
    verdicts: list[Verdict] = []
    for name in names:
        print(f'== {name}', flush=True)
        given = [*(QUICK[name] if args.quick else []), *common]
        given += ['--repeats', str(args.repeats)] if args.repeats else []
        given += ['--device', args.device] if name in ON_DEVICE else []
        found = run(name, given)
        verdicts += found
        rows += [
            dict(script=name, requirement=one.requirement, figure=one.figure, holds=str(one.holds)) for one in found
        ]
    print('== requirements')
    show_verdicts(verdicts)
    keep_requirements(rows, names, environment, args.out_dir)
    path = write_summary(environment['machine'], args.out_dir)
    if path is not None:
        print(f'written: {path}')
    return 0 if all(verdict.holds for verdict in verdicts) else 1


def run(name: str, given: Sequence[str]) -> list[Verdict]:
    """One benchmark; its failure is a requirement that does not hold, so that the others still run."""
    try:
        return importlib.import_module(name).main(given)
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        return [Verdict(f'{name} runs', f'{type(error).__name__}: {error}'.splitlines()[0], False)]


def keep_requirements(
    rows: Sequence[dict[str, Any]], names: Sequence[str], environment: Mapping[str, Any], folder: Path
) -> None:
    """Write what was required, with what other benchmarks of this machine required in earlier runs."""
    path = folder / f'requirements_{environment["machine"]}.csv'
    earlier: list[dict[str, Any]] = []
    if path.is_file():
        with path.open(newline='') as file:
            earlier = [row for row in csv.DictReader(file) if row['script'] not in names]
    order = list(QUICK)
    merged = sorted([*earlier, *rows], key=lambda row: order.index(row['script']))
    if merged:
        write_csv('requirements', merged, environment, folder)


def write_summary(machine: str, folder: Path) -> Path | None:
    """Write ``summary.json`` from the file of `reference_step`; None without one.

    The ratios at the top are those of the smallest batch, the cached one from a float32 cache, and OMH's overhead is
    the larger one of both precisions. ``by_batch`` has all.
    """
    source = folder / f'reference_step_{machine}.csv'
    if not source.is_file():
        return None
    with source.open(newline='') as file:
        rows = list(csv.DictReader(file))
    by_batch = {}
    for batch in sorted({row['batch'] for row in rows}, key=int):
        found = {row['step']: row for row in rows if row['batch'] == batch and row['omh'] == 'off'}
        by_batch[batch] = dict(
            stego_fp32_ratio=ratio(found, 'float32'),
            stego_bf16_ratio=ratio(found, 'bfloat16'),
            stego_cached_ratio=ratio(found, 'cached float32'),
            stego_cached_fp16_ratio=ratio(found, 'cached float16'),
            omh_overhead_live=round(max(omh_overhead(rows, batch, step) for step in LIVE), 4),
        )
    first = rows[0]
    headline = next(iter(by_batch.values()))
    content = dict(
        {key: headline[key] for key in ('stego_fp32_ratio', 'stego_bf16_ratio', 'stego_cached_ratio')},
        omh_overhead_live=headline['omh_overhead_live'],
        by_batch=by_batch,
        machine=machine,
        cpu=first['cpu'],
        gpu=first['gpu'],
        threads=int(first['threads']),
        load=float(first['load']),
        versions=versions(first),
        commit=first['commit'],
        date=first['date'],
    )
    path = folder / 'summary.json'
    with replaced_when_complete(path) as file:
        file.write(f'{json.dumps(content, indent=2)}\n'.encode())
    return path


def ratio(found: Mapping[str, Mapping[str, Any]], step: str) -> float | None:
    """Of a step to the references' manner; None where it was left out."""
    return float(found[step]['wall_ratio']) if step in found else None


def versions(row: Mapping[str, str]) -> dict[str, str]:
    """Of Python and of what the measured code stands on."""
    result = dict(python=row['python'], torch=row['torch'], pot=row['pot'])
    for names in STACK:
        for name in names:
            try:
                result[name] = metadata.version(name)
            except metadata.PackageNotFoundError:
                continue
    return result


if __name__ == '__main__':
    raise SystemExit(main())
