"""Each benchmark runs with its smallest settings and writes its columns; no timing is asserted."""

from __future__ import annotations

import csv
import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[1] / 'benchmarks'
ENVIRONMENT = ['cpu', 'gpu', 'threads', 'load', 'python', 'torch', 'pot', 'commit', 'date']
COMMON = ['--repeats', '1', '--threads', '1', '--machine', 'here']


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):  # noqa: ANN201
    monkeypatch.setattr(sys, 'path', [str(BENCHMARKS), *sys.path])
    names = {path.stem for path in BENCHMARKS.glob('*.py')}
    yield importlib.import_module
    for name in names & sys.modules.keys():
        del sys.modules[name]


def measure_here(module: ModuleType, measure: str) -> None:
    """Save the time of a process that imports everything anew; memory is then not that of the case alone."""
    module.measure_apart = lambda _script, cases, **_: [getattr(module, measure)(*case) for case in cases]


def run(module: ModuleType, folder: Path, *options: str) -> tuple[list[str], list[dict[str, str]], list]:
    verdicts = module.main([*COMMON, '--out-dir', str(folder), *options])
    assert [path.name for path in folder.iterdir()] == [f'{module.__name__}_here.csv']
    with (folder / f'{module.__name__}_here.csv').open(newline='') as file:
        reader = csv.DictReader(file)
        rows = list(reader)
        return list(reader.fieldnames), rows, verdicts


def test_step_share(load, tmp_path: Path) -> None:
    tiny = ['--backbone', 'tiny', '--image-size', '32', '--batch-sizes', '2', '--part-repeats', '1']
    columns, rows, verdicts = run(load('step_share'), tmp_path, *tiny, '--variants', 'default', 'solver gradient')
    assert columns == ['batch', 'what', 'wall_ms', 'cpu_ms', 'wall_percent', 'cpu_percent', *ENVIRONMENT]
    named = {row['what']: row for row in rows}
    assert {'OMH, default', 'OMH, solver gradient', 'part: plans', 'part: matching', 'step without OMH'} <= named.keys()
    assert float(named['step with OMH']['wall_percent']) == 100
    assert len(verdicts) == 1


def test_lean_matching(load, tmp_path: Path) -> None:
    small = ['--batch-sizes', '2', '--positions', '500', '--levels', '20', '40', '--directions', 'fine_to_coarse']
    columns, rows, verdicts = run(load('lean_matching'), tmp_path, *small, '--naive', 'naive_max')
    measured = ['wall_ms', 'cpu_ms', 'rss_mib', 'tensors_mib']
    assert columns == ['batch', 'positions', 'coarse', 'fine', 'direction', 'form', *measured, *ENVIRONMENT]
    assert [row['form'] for row in rows] == ['lean', 'naive_max']
    # The naive form holds at least its product of 1000 x 40 x 20 float32 numbers.
    assert float(rows[1]['tensors_mib']) > 1000 * 40 * 20 * 4 / 2**20 > float(rows[0]['tensors_mib'])
    assert len(verdicts) == 2


def test_lean_and_naive_forms_agree(load) -> None:
    module = load('lean_matching')
    lower, _, plan = module.build_inputs(50, 4, 7, 'fine_to_coarse')
    reference, *others = (form(lower, plan) for form in module.ALTERNATIVES.values())
    assert all((other == reference).all() for other in others)


def test_plan_time(load, tmp_path: Path) -> None:
    small = ['--lambdas', '0.1', '--levels', '3', '6', '--dtypes', 'float64', '--centres', 'random']
    columns, rows, _ = run(load('plan_time'), tmp_path, *small)
    setting = ['centres', 'entropy_weight', 'dtype', 'gradient', 'solver']
    assert columns == [*setting, 'wall_ms', 'cpu_ms', 'iterations', 'violation', 'finite_gradient', *ENVIRONMENT]
    assert len(rows) == 2 * 5
    assert all(float(row['violation']) < 1e-3 for row in rows)
    assert [row['finite_gradient'] for row in rows[-5:]] == ['True'] * 5


def test_neighbour_search(load, tmp_path: Path) -> None:
    small = ['--items', '3000', '--channels', '8', '--neighbours', '5', '--chunk-sizes', '100', '3000']
    columns, rows, verdicts = run(load('neighbour_search'), tmp_path, *small)
    setting = ['items', 'channels', 'neighbours', 'search', 'chunk_size', 'blocks']
    assert columns == [*setting, 'block_s', 'extrapolated_minutes', 'gflop_per_s', 'rss_mib', *ENVIRONMENT]
    assert [(row['search'], row['chunk_size']) for row in rows] == [
        ('matmul', '100'), ('topk', '100'), ('matmul', '3000'), ('topk', '3000')
    ]  # fmt: skip
    # The tile of 3000 x 3008 similarities, which are float32, is the larger part.
    assert 10 < float(rows[2]['rss_mib']) < 500
    assert [verdict.holds for verdict in verdicts] == [True, True]


def test_smoothness_energy(load, tmp_path: Path) -> None:
    module = load('smoothness_energy')
    measure_here(module, 'measure_memory')
    small = ['--batch-sizes', '4', '--sides', '20', '--channels', '16', '--classes', '5']
    columns, rows, verdicts = run(module, tmp_path, *small)
    measured = ['wall_ms', 'cpu_ms', 'rss_mib', 'tensors_mib']
    assert columns == ['batch', 'side', 'channels', 'classes', 'form', *measured, *ENVIRONMENT]
    assert [row['form'] for row in rows] == ['moments', 'pairs']
    # The form of all pairs holds at least one map of 4 x 400 x 400 float32 numbers.
    assert float(rows[1]['tensors_mib']) > 4 * 400 * 400 * 4 / 2**20 > float(rows[0]['tensors_mib'])
    assert len(verdicts) == 2


def test_both_forms_of_the_energy_agree(load) -> None:
    module = load('smoothness_energy')
    gradients = []
    for form in module.FORMS.values():
        features, assignments, permutation = module.build_inputs(3, 5, 8, 4)
        energy = form(features, assignments.requires_grad_(), permutation)
        energy.backward()
        gradients.append(torch.cat([energy.detach()[None], assignments.grad.flatten()]))
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)


def test_hidden_positive_loss(load, tmp_path: Path) -> None:
    module = load('hidden_positive_loss')
    measure_here(module, 'measure_memory')
    small = ['--batch-sizes', '4', '--lean-batch-sizes', '5', '--positions', '150']
    columns, rows, verdicts = run(module, tmp_path, *small)
    measured = ['wall_ms', 'cpu_ms', 'rss_mib', 'tensors_mib']
    assert columns == ['batch', 'patches', 'form', *measured, *ENVIRONMENT]
    assert [(row['batch'], row['form']) for row in rows] == [('4', 'lean'), ('4', 'straightforward'), ('5', 'lean')]
    # The straightforward form holds at least two maps of 600 x 600 float32 numbers, of which some rows are no anchors.
    assert float(rows[1]['tensors_mib']) > 600 * 600 * 4 / 2**20
    assert rows[2]['tensors_mib'] == '' and float(rows[2]['rss_mib']) >= 0
    assert len(verdicts) == 3


def test_both_forms_of_the_contrast_agree(load) -> None:
    module = load('hidden_positive_loss')
    results = []
    for form in module.FORMS.values():
        inputs = module.build_inputs(3, 40)
        loss = form(inputs[0].requires_grad_(), inputs[1].requires_grad_(), *inputs[2:])
        loss.backward()
        results.append(torch.cat([loss.detach()[None], inputs[0].grad.flatten(), inputs[1].grad.flatten()]))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-6)


def test_evaluation(load, tmp_path: Path) -> None:
    module = load('evaluation')
    measure_here(module, 'measure_memory')
    small = ['--backbone', 'tiny', '--sizes', '32x48', '--crf-repeats', '1', '--large', '64x64']
    columns, rows, verdicts = run(module, tmp_path, *small)
    figures = ['wall_ms', 'cpu_ms', 'images_per_s', 'percent_of_prediction']
    assert columns == ['height', 'width', 'what', *figures, *ENVIRONMENT]
    assert [row['what'] for row in rows] == [
        'prediction', 'scoring', 'scoring, 1000 resamples', 'evaluation, once', 'evaluation, 1000 resamples, once',
        'prediction of both probes with CRF',
    ]  # fmt: skip
    assert (rows[0]['height'], rows[0]['width'], float(rows[0]['percent_of_prediction'])) == ('32', '48', 100)
    assert len(verdicts) == 2 and verdicts[1].holds


def test_crf(load, tmp_path: Path) -> None:
    columns, rows, verdicts = run(load('crf'), tmp_path, '--sizes', '32x48', '--clusters', '4')
    setting = ['backend', 'height', 'width', 'clusters', 'segmentations']
    assert columns == [*setting, 'wall_ms', 'images_per_second', 'changed_percent', *ENVIRONMENT]
    backends = ['torch', 'pydensecrf'] if find_spec('pydensecrf') else ['torch']
    assert [(row['backend'], row['segmentations']) for row in rows] == [(b, n) for n in ('1', '5') for b in backends]
    assert all(verdict.holds for verdict in verdicts) and len(verdicts) == len(backends) - 1


def test_run_all_reports_what_fails(load, tmp_path: Path, monkeypatch, capsys) -> None:
    module, common = load('run_all'), load('common')
    seen = {}

    def stand_in(name: str, holds: bool):  # noqa: ANN202
        def main(argv: list[str]) -> list:
            seen[name] = argv
            return [common.Verdict(name, 'a figure', holds)]

        return main

    outcomes = dict(
        plan_time=True, lean_matching=False, step_share=True, neighbour_search=True, smoothness_energy=True,
        hidden_positive_loss=True, evaluation=True, crf=True,
    )  # fmt: skip
    for name, holds in outcomes.items():
        monkeypatch.setattr(load(name), 'main', stand_in(name, holds))
    assert module.main(['--quick', '--out-dir', str(tmp_path), '--threads', '1']) == 1
    assert seen['step_share'][-4:] == ['--out-dir', str(tmp_path), '--threads', '1']
    assert capsys.readouterr().out.splitlines()[-8:] == [
        'holds: plan_time: a figure',
        'FAILS: lean_matching: a figure',
        'holds: step_share: a figure',
        'holds: neighbour_search: a figure',
        'holds: smoothness_energy: a figure',
        'holds: hidden_positive_loss: a figure',
        'holds: evaluation: a figure',
        'holds: crf: a figure',
    ]


def test_labels_hold_no_odd_characters(load) -> None:
    module = load('common')
    environment = module.start(module.parser('', 1).parse_args(['--threads', '1']))
    assert set(environment['machine']) <= set('abcdefghijklmnopqrstuvwxyz0123456789-')
    assert environment['machine'].endswith('-1threads')
