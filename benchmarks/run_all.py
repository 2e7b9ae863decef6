"""Run all benchmarks and say for each requirement whether it holds.

    python benchmarks/run_all.py             # moderate settings
    python benchmarks/run_all.py --quick     # fewer repeats, the smaller batch, fewer items

The exit status is 1 where a requirement does not hold.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import crf
import evaluation
import hidden_positive_loss
import lean_matching
import neighbour_search
import plan_time
import smoothness_energy
import step_share
from common import RESULTS, Verdict, show_verdicts

QUICK = dict(
    crf=['--repeats', '1', '--sizes', '320x320'],
    evaluation=['--repeats', '2', '--sizes', '320x320'],
    hidden_positive_loss=['--repeats', '1', '--lean-batch-sizes', '16'],
    lean_matching=['--repeats', '2', '--batch-sizes', '16'],
    neighbour_search=['--repeats', '2', '--items', '100000'],
    plan_time=['--repeats', '2', '--gradients', 'detach', '--dtypes', 'float64'],
    smoothness_energy=['--repeats', '1', '--sides', '28', '--channels', '384'],
    step_share=['--repeats', '1', '--part-repeats', '3', '--batch-sizes', '16', '--variants', 'default'],
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run all; 0 if every requirement holds."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument('--quick', action='store_true', help='fewer repeats, the smaller batch, fewer items')
    options.add_argument('--threads', help='threads of torch; default: as many as processors')
    options.add_argument('--out-dir', default=str(RESULTS), help='folder of the CSV files')
    options.add_argument('--machine', help='label in the names of the CSV files')
    args = options.parse_args(argv)
    common = ['--out-dir', args.out_dir]
    common += ['--threads', args.threads] if args.threads else []
    common += ['--machine', args.machine] if args.machine else []
    verdicts: list[Verdict] = []
    hosts = (smoothness_energy, hidden_positive_loss)
    scripts = (plan_time, lean_matching, step_share, neighbour_search, *hosts, evaluation, crf)
    for script in scripts:
        print(f'== {script.__name__}')
        verdicts += script.main([*(QUICK[script.__name__] if args.quick else []), *common])
    print('== requirements')
    show_verdicts(verdicts)
    return 0 if all(verdict.holds for verdict in verdicts) else 1


if __name__ == '__main__':
    raise SystemExit(main())
