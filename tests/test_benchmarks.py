"""Each benchmark runs with its smallest settings and writes its columns; no timing is asserted."""

from __future__ import annotations

import csv
import importlib
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

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
    assert [path.name for path in folder.iterdir() if path.suffix != '.png'] == [f'{module.__name__}_here.csv']
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
    module = load('lean_matching')
    measure_here(module, 'measure_memory')
    columns, rows, verdicts = run(module, tmp_path, *small, '--naive', 'naive_max')
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


def test_reference_step(load, tmp_path: Path) -> None:
    tiny = ['--backbone', 'tiny', '--image-size', '32', '--batch-sizes', '2', '--images', '4']
    columns, rows, verdicts = run(load('reference_step'), tmp_path, *tiny)
    assert columns == ['batch', 'step', 'omh', 'wall_ms', 'cpu_ms', 'wall_ratio', 'cpu_ratio', *ENVIRONMENT]
    ours = ['float32', 'bfloat16', 'cached float32', 'cached float16']
    assert [(row['step'], row['omh']) for row in rows] == [
        ("references' manner", 'off'), *((step, omh) for step in ours for omh in ('off', 'on'))
    ]  # fmt: skip
    assert float(rows[0]['wall_ratio']) == 1
    # Equal work; then four limits, and two of OMH.
    assert verdicts[0].holds and len(verdicts) == 1 + 4 + 2


def test_the_straight_step_is_the_librarys(load) -> None:
    module = load('reference_step')
    losses, gradients = module.difference('tiny', 64, 4, 'cpu')
    assert losses < 1e-6 and gradients < 1e-5


@pytest.mark.slow
def test_host_steps(load, tmp_path: Path) -> None:
    module = load('host_steps')
    measure_here(module, 'measure')
    small = ['--backbone', 'tiny', '--batch', '2', '--batch-sizes', '2', '4', '--cached-steps', '1', '--images', '4']
    sizes = ['--image-size', '32', '--image-sizes', '32', '--classes', '9', '--levels', '2', '--hosts', 'hp']
    columns, rows, verdicts = run(module, tmp_path, *small, *sizes)
    assert columns == [*module.COLUMNS, 'wall_ms', 'cpu_ms', 'peak_mib', *ENVIRONMENT]
    found = {tuple(row[key] for key in module.COLUMNS) for row in rows}
    assert len(found) == len(rows) == 2 + 3 + 1 + 2
    assert ('hp', 'on', 'cached', '2', '32', '27', '3') in found and ('hp', 'on', 'live', '4', '32', '27', '3') in found
    assert ('stego', 'on', 'live', '2', '32', '27', '3') in found
    assert len(verdicts) == 1 and (tmp_path / 'host_steps_here.png').stat().st_size > 10_000


@pytest.mark.parametrize(('power', 'holds'), [(1, True), (2, False)])
def test_memory_that_grows_with_the_square_is_noticed(load, power: int, holds: bool) -> None:
    module = load('host_steps')
    args = SimpleNamespace(hosts=['hp'], batch=4, image_size=224)
    setting = dict(host='hp', omh='on', source='live', image_size=224, classes=27, levels=3)
    # A constant share hides the growth of the small batches, not that at the end.
    rows = [dict(setting, batch=batch, peak_mib=100 + batch**power) for batch in (4, 8, 128, 256)]
    (verdict,) = module.judge(rows, args)
    assert verdict.holds is holds


def test_feature_cache(load, tmp_path: Path) -> None:
    tiny = ['--backbone', 'tiny', '--image-size', '64', '--count', '4', '--batch-size', '2']
    columns, rows, verdicts = run(load('feature_cache'), tmp_path, *tiny)
    figures = ['making_ms', 'forward_ms', 'mib', 'estimated_mib', 'warm_items_per_s', 'cold_items_per_s']
    assert columns == ['dtype', 'items', *figures, *ENVIRONMENT]
    assert [row['dtype'] for row in rows] == ['float32', 'float16', 'bfloat16']
    # 24 x 8 x 8 float32 numbers and a label of 64 x 64 bytes each, and half of the former.
    assert float(rows[0]['mib']) - float(rows[1]['mib']) == pytest.approx(4 * 24 * 64 * 2 / 2**20, abs=0.011)
    assert len(verdicts) == 1


def test_loader(load, tmp_path: Path) -> None:
    small = ['--backbone', 'tiny', '--count', '2', '--workers', '0', '--batch-size', '2']
    columns, rows, verdicts = run(load('loader'), tmp_path, *small)
    figures = ['ms_per_item', 'items_per_s', 'changed_percent', 'largest_change']
    assert columns == ['what', 'source', 'workers', *figures, *ENVIRONMENT]
    named = {(row['what'], row['source']): row for row in rows}
    assert named['decode', 'pillow']['largest_change'] == '0' and ('decode', 'cv2') in named
    assert {'crop on the fly, 224', 'stored crop, 224', 'whole image, 320', 'features from the cache, 224'} < {
        what for what, _ in named
    }
    assert len(verdicts) == 1


def test_the_pipelines_of_the_loader(load, tmp_path: Path) -> None:
    module = load('loader')
    photos = load('photos').write_photos(tmp_path / 'images', 1, 96, 128)
    crops = module.store_crops(photos, tmp_path / 'pictures_five_crop_0.5')
    datasets = [module.build_pipeline(what, 'pillow', tmp_path / 'images', crops) for what in module.PIPELINES]
    assert [(len(data), *data[0]['inputs'].shape) for data in datasets] == [(5, 3, 224, 224)] * 2 + [(1, 3, 320, 320)]
    assert [Path(data[0]['data_samples'].img_path).name for data in datasets] == ['000000.jpg', '0.jpg', '000000.jpg']


def test_a_decoder_with_other_pixels_is_noticed(load) -> None:
    module = load('loader')
    rounded = module.deviation(lambda data: data & 0xFE, lambda data: data, [torch.arange(8).numpy()])
    assert rounded == (50.0, 1)


def test_gpu_rate(load, tmp_path: Path, monkeypatch) -> None:
    module = load('gpu_rate')
    tiny = ['--backbone', 'tiny', '--image-size', '32', '--batch-size', '2', '--steps', '1', '--hosts', 'stego', 'hp']
    columns, rows, verdicts = run(module, tmp_path, *tiny, '--device', 'cpu')
    figures = ['wall_ms', 'images_per_s', 'share_of_bare', 'peak_mib']
    assert columns == ['host', 'batch', 'images', 'step', 'omh', *figures, *ENVIRONMENT]
    assert [row['step'] for row in rows[:5]] == ['bare forward', 'device', 'pinned', 'device', 'pinned']
    assert rows[0]['share_of_bare'] == '1.0' and {row['images'] for row in rows} == {'4'}
    assert len(verdicts) == 4
    monkeypatch.setattr(module.torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit, match='gpu_rate.py needs a GPU'):
        module.main([*COMMON, '--out-dir', str(tmp_path)])


def stand_ins(load, monkeypatch, outcomes: dict[str, bool]) -> dict[str, list[str]]:  # noqa: ANN001
    """Let benchmarks hold or not in place of running; what each was called with, in the order of the calls."""
    common = load('common')
    seen: dict[str, list[str]] = {}

    def stand_in(name: str, holds: bool):  # noqa: ANN202
        def main(argv: list[str]) -> list:
            seen[name] = argv
            return [common.Verdict(name, 'a figure', holds)]

        return main

    for name, holds in outcomes.items():
        monkeypatch.setattr(load(name), 'main', stand_in(name, holds))
    return seen


def test_run_all_reports_what_fails(load, tmp_path: Path, monkeypatch, capsys) -> None:
    module = load('run_all')
    names = [name for name in module.QUICK if name != 'gpu_rate' or torch.cuda.is_available()]
    seen = stand_ins(load, monkeypatch, {name: name != 'lean_matching' for name in names})
    monkeypatch.setattr(load('crf'), 'main', lambda argv: 1 / 0)
    options = ['--quick', '--out-dir', str(tmp_path), '--threads', '1', '--machine', 'here']
    assert module.main(options) == 1
    common = ['--out-dir', str(tmp_path), '--threads', '1', '--machine', 'here']
    assert seen['step_share'][-8:] == [*common, '--device', 'cpu'] and '--device' not in seen['evaluation']
    printed = capsys.readouterr().out.splitlines()
    assert printed[-len(names) :] == [
        'FAILS: crf runs: ZeroDivisionError: division by zero' if name == 'crf'
        else f'{"FAILS" if name == "lean_matching" else "holds"}: {name}: a figure'
        for name in names
    ]  # fmt: skip
    assert module.main([*options, '--only', 'lean_matching', '--repeats', '3']) == 1
    assert seen['lean_matching'][-2:] == ['--repeats', '3']
    with (tmp_path / 'requirements_here.csv').open(newline='') as file:
        assert [row['script'] for row in csv.DictReader(file)] == names
    assert not (tmp_path / 'summary.json').exists()


def write_steps(load, folder: Path) -> None:  # noqa: ANN001
    """A file of `reference_step` with round figures."""
    common = load('common')
    milliseconds = {'float32': 500, 'bfloat16': 250, 'cached float32': 20, 'cached float16': 10}
    rows = [
        dict(batch=batch, step=step, omh=omh, wall_ms=wall * batch * (1.08 if omh == 'on' else 1),
             wall_ratio=wall / 1000 if batch == 4 else wall / 2000)
        for batch in (4, 16)
        for omh in ('off', 'on')
        for step, wall in milliseconds.items()
    ]  # fmt: skip
    environment = common.start(common.parser('', 1).parse_args(['--threads', '1', '--machine', 'here']))
    common.write_csv('reference_step', rows, environment, folder)


def test_the_summary_has_the_ratios_of_the_smallest_batch(load, tmp_path: Path, monkeypatch) -> None:
    module = load('run_all')
    write_steps(load, tmp_path)
    stand_ins(load, monkeypatch, dict(crf=True))
    assert module.main(['--only', 'crf', '--out-dir', str(tmp_path), '--threads', '1', '--machine', 'here']) == 0
    summary = json.loads((tmp_path / 'summary.json').read_text())
    assert summary['stego_fp32_ratio'] == 0.5 and summary['stego_bf16_ratio'] == 0.25
    assert summary['stego_cached_ratio'] == 0.02 and summary['omh_overhead_live'] == pytest.approx(0.08)
    assert summary['by_batch']['16']['stego_cached_fp16_ratio'] == 0.005
    assert summary['machine'] == 'here' and summary['threads'] == 1
    assert {'commit', 'date', 'load', 'versions'} < summary.keys() and 'torch' in summary['versions']


def test_tables_take_the_place_between_the_markers(load, tmp_path: Path) -> None:
    module = load('tables')
    write_steps(load, tmp_path)
    page = tmp_path / 'page.md'
    page.write_text(f'before\n\n{module.BEGIN}\nold\n{module.END}\nafter\n')
    for _ in range(2):
        module.main(['--results', str(tmp_path), '--write', '--page', str(page)])
    before, content, after = page.read_text().replace(module.END, module.BEGIN).split(module.BEGIN)
    assert (before, after) == ('before\n\n', '\nafter\n')
    assert content.count('## ') == 1 and 'old' not in content
    assert '| step | OMH | batch 4: s | batch 4: of the references | batch 16: s |' in content
    assert '| float32 | off | 2 | 0.5 | 8 | 0.25 |' in content
    with pytest.raises(ValueError, match='must hold the lines'):
        module.filled('no markers', content)


def test_every_benchmark_has_a_table_and_a_place(load) -> None:
    tables, run_all, sections = load('tables'), load('run_all'), load('sections')
    assert set(tables.TABLES) == set(sections.TEXTS) == {*run_all.QUICK, 'requirements'}
    for name in run_all.QUICK:
        assert name in sections.TEXTS[name].command


def test_tables_prefer_a_machine_and_then_the_newest(load, tmp_path: Path) -> None:
    module = load('tables')
    for label, date, threads in (('old', '2025-01-01', 8), ('new', '2026-01-01', 1), ('wide', '2026-01-01', 2)):
        (tmp_path / f'crf_{label}.csv').write_text(f'backend,date,threads\ntorch,{date},{threads}\n')
    assert module.read(tmp_path, 'crf')[0].name == 'crf_wide.csv'
    assert module.read(tmp_path, 'crf', 'old')[0].name == 'crf_old.csv'
    assert module.read(tmp_path, 'loader') is None


def test_measurements_wait_for_the_device_before_and_after(load, monkeypatch) -> None:
    module = load('common')
    calls: list[str] = []
    monkeypatch.setattr(module, 'synchronise', calls.append)

    def prepare():  # noqa: ANN202
        calls.append('prepare')
        return lambda: calls.append('run')

    taken = module.interleave(dict(one=prepare), repeats=2, warmup=0, device='cuda:1')
    assert calls == 2 * ['prepare', 'cuda:1', 'run', 'cuda:1']
    assert len(taken['one'].wall) == 2


def test_labels_hold_no_odd_characters(load) -> None:
    module = load('common')
    environment = module.start(module.parser('', 1).parse_args(['--threads', '1']))
    assert set(environment['machine']) <= set('abcdefghijklmnopqrstuvwxyz0123456789-')
    assert environment['machine'].endswith('-1threads')
