"""Time and iterations of the plans of a hierarchy, cold and warm-started, beside POT's solvers called plainly.

    python benchmarks/plan_time.py

One measurement solves the plans of all level pairs (27 x 54 and 54 x 108 by default) to the same tolerance. Warm means:
the potentials of the plan before one step of Adam on the centres (5e-3 per coordinate). Ours are Newton's, in float64
whatever the type of POT's. Centres are those of a fresh head (``random``) or a finer level scattered around the coarser
one, as after training (``hierarchical``). With the gradient ``solver``, the backward pass is part of the time.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Sequence

import ot
import torch
from common import ADAM_STEP, CODE_CHANNELS, LEVEL_SIZES, Benchmark, Question, Rows, Verdict, interleave
from torch import Tensor

from omh_mmseg.transport import hierarchy_plans
from omh_mmseg.transport.plan import cosine_cost

DTYPES = dict(float32=torch.float32, float64=torch.float64)
CENTRES = ('random', 'hierarchical')
TOLERANCE = 1e-6
MAX_ITERATIONS = 1000
SCATTER = 0.5


def build_centres(kind: str, sizes: Sequence[int], generator: torch.Generator) -> list[Tensor]:
    """Centres of all levels, coarsest first."""
    centres = [torch.randn(sizes[0], CODE_CHANNELS, generator=generator)]
    for size in sizes[1:]:
        noise = torch.randn(size, CODE_CHANNELS, generator=generator)
        if kind == 'random':
            centres.append(noise)
        else:
            centres.append(centres[-1][torch.arange(size) % len(centres[-1])] + SCATTER * noise)
    return centres


def adam_step(centres: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Centres after one step of Adam: every coordinate moves by about the learning rate."""
    return [item + ADAM_STEP * torch.randn(item.shape, generator=generator).sign() for item in centres]


class Case:
    """One setting of the solver; remembers what its last solve reported."""

    def __init__(self, solver: str, kind: str, weight: float, dtype: str, gradient: str, sizes: Sequence[int]) -> None:
        self.solver, self.kind, self.weight = solver, kind, weight
        self.dtype, self.gradient = dtype, gradient
        self.generator = torch.Generator().manual_seed(0)
        self.centres = build_centres(kind, sizes, self.generator)
        self.settings = dict(
            tolerance=TOLERANCE,
            max_iterations=MAX_ITERATIONS,
            gradient=gradient,
        )
        self.potentials = [plan.potentials for plan in hierarchy_plans(self.centres, weight, **self.settings)]
        self.iterations: list[int] = []
        self.violation = float('nan')
        self.finite_gradient = ''

    def prepare(self) -> Callable[[], None]:
        """For `interleave`: centres moved by one step."""
        centres = [item.requires_grad_() for item in adam_step(self.centres, self.generator)]
        if self.solver.startswith('hierarchy_plans'):
            return lambda: self._ours(centres)
        return lambda: self._pot(centres)

    def _ours(self, centres: list[Tensor]) -> None:
        warm = self.potentials if self.solver.endswith('warm') else None
        plans = hierarchy_plans(centres, self.weight, warm_starts=warm, **self.settings)
        self._backward([plan.plan for plan in plans], centres)
        self.iterations = [plan.iterations for plan in plans]
        self.violation = max(plan.violation for plan in plans)

    def _pot(self, centres: list[Tensor]) -> None:
        plans, self.iterations = [], []
        with torch.set_grad_enabled(self.gradient == 'solver'):
            for rows, columns in zip(centres, centres[1:]):
                cost = cosine_cost(rows.to(DTYPES[self.dtype]), columns.to(DTYPES[self.dtype]))
                marginals = [torch.full((size,), 1 / size, dtype=cost.dtype) for size in cost.shape]
                if self.solver == 'ot.solve_batch':
                    grad = 'autodiff' if self.gradient == 'solver' else 'detach'
                    solved = ot.solve_batch(
                        cost[None],
                        self.weight,
                        *(item[None] for item in marginals),
                        max_iter=MAX_ITERATIONS,
                        tol=TOLERANCE,
                        method='log_sinkhorn',
                        grad=grad,
                    )
                    plans.append(solved.plan[0])
                    continue
                plan, log = ot.sinkhorn(
                    *marginals,
                    cost,
                    self.weight,
                    method=self.solver.split()[1],
                    numItermax=MAX_ITERATIONS,
                    stopThr=TOLERANCE,
                    log=True,
                    warn=False,
                )
                plans.append(plan)
                self.iterations.append(int(log['niter']) + 1)
        self._backward(plans, centres)
        self.violation = max(_violation(plan.detach()) for plan in plans)

    def _backward(self, plans: Sequence[Tensor], centres: Sequence[Tensor]) -> None:
        if self.gradient == 'solver':
            torch.stack([plan.square().sum() for plan in plans]).sum().backward()
            self.finite_gradient = str(all(bool(item.grad.isfinite().all()) for item in centres))


def _violation(plan: Tensor) -> float:
    deviations = [(plan.sum(axis) * plan.shape[1 - axis] - 1).abs().max() for axis in (0, 1)]
    return float(torch.stack(deviations).max())


SOLVERS = (
    'hierarchy_plans cold',
    'hierarchy_plans warm',
    'ot.sinkhorn sinkhorn_log',
    'ot.sinkhorn sinkhorn',
    'ot.solve_batch',
)


def plan_time(args: argparse.Namespace) -> tuple[Rows, list[Verdict]]:
    """All settings, the solvers of each in turn."""
    rows: Rows = []
    for kind, weight, dtype, gradient in itertools.product(args.centres, args.lambdas, args.dtypes, args.gradients):
        cases = {name: Case(name, kind, weight, dtype, gradient, args.levels) for name in SOLVERS}
        label = f'{kind} centres, lambda {weight:g}, {dtype}, gradient {gradient}'
        samples = interleave({name: case.prepare for name, case in cases.items()}, args.repeats, progress=label)
        for name, case in cases.items():
            rows.append(
                dict(
                    centres=kind,
                    entropy_weight=weight,
                    dtype=dtype,
                    gradient=gradient,
                    solver=name,
                    **samples[name].times(),
                    iterations=' '.join(map(str, case.iterations)),
                    violation=float(f'{case.violation:.2g}'),
                    finite_gradient=case.finite_gradient,
                )
            )
    # All pairs in one call, warm, beside POT called pair by pair, over all settings together.
    total = {name: sum(row['cpu_ms'] for row in rows if row['solver'] == name) for name in SOLVERS}
    warm, plain = total['hierarchy_plans warm'], total['ot.sinkhorn sinkhorn_log']
    return rows, [
        Verdict(
            "the plans of all pairs, warm-started, take no longer than POT's log-domain solver called plainly",
            f'{warm / plain:.2f} of its processor time, {total["hierarchy_plans cold"] / plain:.2f} from a cold start, '
            f'over {len(rows) // len(SOLVERS)} settings',
            warm <= plain,
        )
    ]


main = Benchmark(
    __file__,
    __doc__,
    {
        '': Question(
            plan_time,
            'Plans of all level pairs',
            repeats=7,
            options=dict(
                lambdas=[0.1, 0.05, 0.01], levels=list(LEVEL_SIZES), dtypes=list(DTYPES),
                gradients=['detach', 'solver'], centres=list(CENTRES),
            ),
            quick=dict(repeats=2, gradients=['detach'], dtypes=['float64']),
            choices=dict(dtypes=list(DTYPES), gradients=['detach', 'solver'], centres=CENTRES),
        )
    },
)  # fmt: skip

if __name__ == '__main__':
    main()
