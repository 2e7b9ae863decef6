"""Each benchmark runs with its smallest settings and writes its columns; no timing is asserted."""

from __future__ import annotations

import csv
import importlib
import re
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parents[1]
BENCHMARKS = REPOSITORY / 'benchmarks'
PAGE = REPOSITORY / 'docs' / 'benchmarks.md'
ENVIRONMENT = ['cpu', 'gpu', 'threads', 'load', 'python', 'torch', 'pot', 'commit', 'date']
TIMES = ['wall_ms', 'cpu_ms']
MEMORY = ['rss_mib', 'tensors_mib']
TINY = '--backbone tiny'
NUMBER = r'\d+(\.\d+)?'

# Command, columns before those of the environment, number of verdicts.
SMALLEST = [
    (f'steps reference {TINY} --image-size 32 --batch-sizes 2 --images 4',
     ['batch', 'step', 'omh', *TIMES, 'wall_ratio', 'cpu_ratio'], 1 + 4 + 2),
    pytest.param(
        f'steps hosts {TINY} --batch 2 --batch-sizes 2 4 --cached-steps 1 --images 4 --image-size 32 --image-sizes 32 '
        '--classes 9 --levels 2 --hosts hp',
        ['host', 'omh', 'source', 'batch', 'image_size', 'classes', 'levels', *TIMES, 'peak_mib'], 1,
        marks=pytest.mark.slow),
    (f'cached_steps views {TINY} --image-size 32 --batch 2 --images 4 --views 1',
     ['batch', 'step', 'views', 'linear_probe', *TIMES, 'wall_ratio', 'cpu_ratio'], 1),
    (f'cached_steps omh {TINY} --image-size 32 --batch 2 --images 4 --hosts smooseg',
     ['host', 'batch', 'step', *TIMES, 'added_percent'], 1),
    (f'cached_steps contrast {TINY} --image-size 32 --batch-sizes 2 4',
     ['batch', 'what', 'products', *TIMES, 'share'], 2),
    ('cached_steps probe --batch 2 --height 64 --width 64',
     ['batch', 'height', 'width', 'classes', 'what', 'row_share', *TIMES, 'share_percent'], 2),
    ('cache_cost --backbones vit-s8 --precisions float32 --batch 1 --image-size 64',
     ['backbone', 'precision', 'data', 'items', 'cpu_ms_per_item', 'hours', 'gib_float32', 'gib_float16',
      'passes_of_a_run', 'hours_of_a_run'], 0),
    (f'step_share {TINY} --image-size 32 --batch-sizes 2 --part-repeats 1 --variants default "solver gradient" '
     '"all of these"',
     ['batch', 'what', *TIMES, 'wall_percent', 'cpu_percent'], 1),
    ('proposals components --channels 16',
     ['channels', 'what', *TIMES, 'error', 'masks'], 1),
    ('proposals step --batch 2 --width 8 --size 32 --classes 4',
     ['batch', 'channels', 'form', *TIMES, 'rss_mib', 'loss'], 1),
    pytest.param(
        f'gpu_rate {TINY} --image-size 32 --batch-size 2 --steps 1 --hosts stego hp --device cpu',
        ['host', 'batch', 'images', 'step', 'omh', 'wall_ms', 'images_per_s', 'share_of_bare', 'peak_mib'], 4,
        marks=pytest.mark.slow),
    ('plan_time --lambdas 0.1 --levels 3 6 --dtypes float64 --centres random --gradients detach solver',
     ['centres', 'entropy_weight', 'dtype', 'gradient', 'solver', *TIMES, 'iterations', 'violation', 'finite_gradient'],
     1),
    ('lean_forms matching --batch-sizes 2 --positions 500 --levels 20 40 --directions fine_to_coarse '
     '--others naive_max',
     ['batch', 'positions', 'coarse', 'fine', 'direction', 'form', *TIMES, *MEMORY], 2),
    ('lean_forms energy --batch-sizes 4 --sides 20 --channels 16 --classes 5',
     ['batch', 'side', 'channels', 'classes', 'form', *TIMES, *MEMORY], 2),
    ('lean_forms contrast --batch-sizes 4 --lean-batch-sizes 5 --positions 150',
     ['batch', 'patches', 'form', *TIMES, *MEMORY], 3),
    ('neighbour_search --items 3000 --channels 8 --neighbours 5 --chunk-sizes 100 3000',
     ['items', 'channels', 'neighbours', 'search', 'chunk_size', 'blocks', 'block_s', 'extrapolated_minutes',
      'gflop_per_s', 'rss_mib'], 2),
    (f'reading loader {TINY} --count 2 --workers 0 --batch-size 2',
     ['what', 'source', 'workers', 'ms_per_item', 'items_per_s', 'changed_percent', 'largest_change'], 1),
    (f'reading cache {TINY} --image-size 64 --count 4 --batch-size 2',
     ['dtype', 'items', 'making_ms', 'forward_ms', 'mib', 'estimated_mib', 'warm_items_per_s', 'cold_items_per_s'], 1),
    (f'evaluation scoring {TINY} --sizes 32x48 --crf-repeats 1 --large 64x64',
     ['height', 'width', 'what', *TIMES, 'images_per_s', 'percent_of_prediction'], 2),
    ('evaluation crf --sizes 32x48 --clusters 4 --pictures 1',
     ['backend', 'height', 'width', 'clusters', 'segmentations', *TIMES, 'cpu_ratio', 'changed_percent'],
     2 * int(find_spec('pydensecrf') is not None)),
    ('eagle eigen --positions 36', ['positions', 'code', 'solver', *TIMES, 'error'], 1),
    ('eagle step --batch-sizes 2 --sides 4', ['batch', 'side', 'form', *TIMES, 'rss_mib'], 1),
    ('start_up --imports nothing --commands 1', ['what', 'cpu_s', 'wall_s'], 0),
    ('floors --positions 9 --batch-sizes 2 --starts 1', ['what', 'batch', *TIMES], 0),
    pytest.param(
        'photos --images 6 --steps 2', ['images', 'steps', 'what', 'command', 'cpu_s'], 1, marks=pytest.mark.slow),
    pytest.param('demo_stages --steps 2', ['source', 'steps', 'stage', *TIMES], 1, marks=pytest.mark.slow),
    pytest.param('start_checks --images 40 --distinct 4', ['what', 'images', *TIMES], 1, marks=pytest.mark.slow),
    pytest.param(
        'scale --images 30 --distinct 3 --steps 2 --workers 1 --worker-steps 12 --channels 8 --chunk-size 50',
        ['part', 'items', 'seconds', 'cpu_seconds', 'mib'], 3, marks=pytest.mark.slow),
]  # fmt: skip


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch):  # noqa: ANN201
    monkeypatch.setattr(sys, 'path', [str(BENCHMARKS), *sys.path])
    names = {path.stem for path in BENCHMARKS.glob('*.py')}
    yield importlib.import_module
    for name in names & sys.modules.keys():
        del sys.modules[name]


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline='') as file:
        return list(csv.DictReader(file))


def check_rows(name: str, rows: list[dict[str, str]]) -> None:
    """What is certain of the smallest measurement, whatever the machine."""
    if name == 'steps_reference':
        steps = ['float32', 'bfloat16', 'cached float32', 'cached float16']
        expected = [("references' manner", 'off'), *((step, omh) for step in steps for omh in ('off', 'on'))]
        assert [(row['step'], row['omh']) for row in rows] == expected and rows[0]['wall_ratio'] == '1.0'
    elif name == 'steps_hosts':
        found = {tuple(row.values())[:7] for row in rows}
        assert len(found) == len(rows) == 2 + 3 + 1 + 2
        assert {('hp', 'on', 'cached', '2', '32', '27', '3'), ('stego', 'on', 'live', '2', '32', '27', '3')} < found
    elif name == 'step_share':
        parts = {row['what']: row for row in rows}
        assert {'OMH, default', 'OMH, solver gradient', 'part: plans', 'part: matching'} < parts.keys()
        assert float(parts['step with OMH']['wall_percent']) == 100 and 'step without OMH' in parts
    elif name == 'gpu_rate':
        assert [row['step'] for row in rows[:5]] == ['bare forward', 'device', 'pinned', 'device', 'pinned']
        assert rows[0]['share_of_bare'] == '1.0' and {row['images'] for row in rows} == {'4'}
    elif name == 'plan_time':
        assert len(rows) == 2 * 5 and all(float(row['violation']) < 1e-3 for row in rows)
        assert [row['finite_gradient'] for row in rows] == [''] * 5 + ['True'] * 5
    elif name == 'lean_forms_matching':
        # The plain form holds at least its product of 1000 x 40 x 20 float32 numbers.
        assert float(rows[1]['tensors_mib']) > 1000 * 40 * 20 * 4 / 2**20 > float(rows[0]['tensors_mib'])
    elif name == 'lean_forms_energy':
        # At least one map of 4 x 400 x 400 float32 numbers.
        assert float(rows[1]['tensors_mib']) > 4 * 400 * 400 * 4 / 2**20 > float(rows[0]['tensors_mib'])
    elif name == 'lean_forms_contrast':
        forms = [(row['batch'], row['form']) for row in rows]
        assert forms == [('4', 'lean'), ('4', 'straightforward'), ('5', 'lean')]
        # At least two maps of 600 x 600 float32 numbers, of which some rows are no anchors.
        assert float(rows[1]['tensors_mib']) > 600 * 600 * 4 / 2**20
        assert rows[2]['tensors_mib'] == '' and float(rows[2]['rss_mib']) >= 0 and float(rows[2]['wall_ms']) > 0
    elif name == 'neighbour_search':
        searches = [(row['search'], row['chunk_size']) for row in rows]
        assert searches == [('matmul', '100'), ('topk', '100'), ('matmul', '3000'), ('topk', '3000')]
    elif name == 'reading_loader':
        named = {(row['what'], row['source']): row for row in rows}
        assert named['decode', 'pillow']['largest_change'] == '0' and ('decode', 'cv2') in named
        assert {'stored crop, 224', 'whole image, 320', 'features from the cache, 224'} < {what for what, _ in named}
    elif name == 'reading_cache':
        # 24 x 8 x 8 float32 numbers and a label of 64 x 64 bytes each, and half of the former.
        assert float(rows[0]['mib']) - float(rows[1]['mib']) == pytest.approx(4 * 24 * 64 * 2 / 2**20, abs=0.011)
    elif name == 'evaluation_scoring':
        assert list(rows[0].values())[:3] == ['32', '48', 'prediction'] and len(rows) == 6
    elif name == 'start_up':
        assert [row['what'] for row in rows] == ['nothing', 'tools/analysis_tools/border_clusters.py --help']
    elif name == 'eagle_eigen':
        assert len(rows) == 2 * 4 and all(float(row['error']) < 1e-3 for row in rows)
    elif name == 'eagle_step':
        assert [row['form'] for row in rows] == ['library', 'straight line']
    elif name == 'cached_steps_views':
        assert [row['views'] for row in rows] == ['', '', '1'] and rows[0]['cpu_ratio'] == '1.0'
    elif name == 'cached_steps_omh':
        folded = 'with OMH, clusters folded one after another'
        assert [row['step'] for row in rows] == ['without OMH', 'with OMH', folded]
    elif name == 'cache_cost':
        assert [row['items'] for row in rows] == ['488510', '14875', '4545']
        # 384 x 8 x 8 numbers and a label of 64 x 64 bytes.
        assert float(rows[0]['gib_float32']) == pytest.approx(488510 * (384 * 64 * 4 + 64 * 64) / 2**30, abs=0.01)
    elif name == 'cached_steps_probe':
        assert [row['share_percent'] == '' for row in rows] == [True, True, False, False, False]
    elif name == 'cached_steps_contrast':
        assert [row['share'] == '1.0' for row in rows] == 4 * [True, False]
        assert {row['products'] for row in rows} == {'float32', 'bfloat16'}
    elif name == 'photos':
        assert [row['command'] for row in rows] == 2 * ['train.py', 'predict.py']
    elif name == 'demo_stages':
        assert {'scenes drawn', 'training', 'dense CRF', 'pictures'} < {row['stage'] for row in rows}
        assert float(rows[-1]['cpu_ms']) > float(rows[0]['cpu_ms']) > 0 and rows[-1]['stage'] == 'all'
    elif name == 'start_checks':
        named = [row['what'] for row in rows]
        assert {row['images'] for row in rows} == {'40'} and 'lock of the work directory' in named
        assert sum(what.startswith('picture: ') for what in named) == 3
    elif name == 'scale':
        assert {'data set', 'search, extrapolated', 'training, first step'} < {row['part'] for row in rows}
        assert {row['items'] for row in rows} == {'30', '150'} and float(rows[-2]['mib']) > 100
    elif name == 'floors':
        assert [row['what'] for row in rows] == ['OMH', 'contrast', 'imports of two commands']
        assert all(float(row['cpu_ms']) > 0 for row in rows)
    elif name.startswith('proposals'):
        assert float(rows[0]['cpu_ms']) > 0
    else:
        backends = ['torch', 'pydensecrf'] if find_spec('pydensecrf') else ['torch']
        assert [(row['backend'], row['segmentations']) for row in rows] == [(b, n) for n in '15' for b in backends]


@pytest.mark.parametrize(('command', 'columns', 'verdicts'), SMALLEST)
def test_a_benchmark_writes_its_columns(load, tmp_path: Path, command: str, columns: list[str], verdicts: int) -> None:
    script, *given = shlex.split(command)
    module = load(script)
    question = given[0] if given[0] in module.main.questions else ''
    # Saves the time of a process that imports everything anew; memory is then not that of the case alone.
    apart = module.main.questions[question].apart
    module.measure_apart = lambda _args, cases, **_: [apart(*case) for case in cases]
    common = ['--quick', '--repeats', '1', '--threads', '1', '--machine', 'here', '--out-dir', str(tmp_path)]
    judged = module.main([*given, *common])
    name = module.main.file_of(question)
    assert {path.name for path in tmp_path.iterdir()} - {f'{name}_here.png'} == {f'{name}_here.csv'}
    rows = read(tmp_path / f'{name}_here.csv')
    assert list(rows[0]) == [*columns, *ENVIRONMENT] and len(judged) == verdicts
    check_rows(name, rows)


def test_every_question_is_tried(load) -> None:
    tried = {' '.join((case.values if hasattr(case, 'values') else case)[0].split()[:2]) for case in SMALLEST}
    for script in load('run_all').SCRIPTS:
        for question in load(script).main.questions:
            assert any(command.startswith(f'{script} {question}') for command in tried)


@pytest.mark.parametrize('loss', ['matching', 'energy', 'contrast'])
def test_all_forms_of_a_loss_agree(load, loss: str) -> None:
    module = load('lean_forms')
    sizes = dict(
        matching=dict(positions=50, coarse=4, fine=7, direction='fine_to_coarse'),
        energy=dict(batch=3, side=5, channels=8, classes=4),
        contrast=dict(batch=3, patches=120),
    )
    comparison = module.COMPARISONS[loss]
    results = []
    for form in comparison.forms.values():
        inputs = module.with_leaves(loss, comparison.inputs(**sizes[loss]))
        value = form(*inputs)
        value.backward()
        results.append(torch.cat([value.detach()[None], *(inputs[leaf].grad.flatten() for leaf in comparison.leaves)]))
    for other in results[1:]:
        torch.testing.assert_close(results[0], other, rtol=1e-4, atol=1e-6)


def test_the_straight_step_is_the_librarys(load) -> None:
    losses, gradients = load('steps').difference('tiny', 64, 4, 'cpu')
    assert losses < 1e-6 and gradients < 1e-5


@pytest.mark.parametrize(('power', 'holds'), [(1, True), (2, False)])
def test_memory_that_grows_with_the_square_is_noticed(load, power: int, holds: bool) -> None:
    args = SimpleNamespace(hosts=['hp'], batch=4, image_size=224)
    setting = dict(host='hp', omh='on', source='live', image_size=224, classes=27, levels=3)
    # A constant share hides the growth of the small batches, not that at the end.
    rows = [dict(setting, batch=batch, peak_mib=100 + batch**power) for batch in (4, 8, 128, 256)]
    (verdict,) = load('steps').judge_hosts(rows, args)
    assert verdict.holds is holds


def test_the_pipelines_of_the_loader(load, tmp_path: Path) -> None:
    module = load('reading')
    photos = module.write_photos(tmp_path / 'images', 1, 96, 128)
    crops = module.store_crops(photos, tmp_path / 'pictures_five_crop_0.5')
    datasets = [module.build_pipeline(what, tmp_path / 'images', crops) for what in module.PIPELINES]
    assert [(len(data), *data[0]['inputs'].shape) for data in datasets] == [(5, 3, 224, 224)] * 2 + [(1, 3, 320, 320)]
    assert [Path(data[0]['data_samples'].img_path).name for data in datasets] == ['000000.jpg', '0.jpg', '000000.jpg']


def test_a_decoder_with_other_pixels_is_noticed(load) -> None:
    rounded = load('reading').deviation(lambda data: data & 0xFE, lambda data: data, [torch.arange(8).numpy()])
    assert rounded == (50.0, 1)


def test_a_gpu_that_is_not_there_is_named(load, tmp_path: Path, monkeypatch) -> None:
    module = load('gpu_rate')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(SystemExit, match='--device cuda asks for a GPU'):
        module.main(['--out-dir', str(tmp_path)])


@pytest.mark.slow
def test_a_script_runs_by_its_command(tmp_path: Path) -> None:
    command = [sys.executable, 'benchmarks/lean_forms.py', 'energy', '--quick', '--batch-sizes', '2', '--sides', '6']
    options = ['--channels', '8', '--classes', '3', '--out-dir', str(tmp_path), '--machine', 'here', '--threads', '1']
    done = subprocess.run([*command, *options], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(read(tmp_path / 'lean_forms_energy_here.csv')) == 2 and 'written: ' in done.stdout


def test_run_all_reports_what_fails(load, tmp_path: Path, monkeypatch, capsys) -> None:
    module = load('run_all')
    verdict, benchmark = load('common').Verdict, load('common').Benchmark
    seen: dict[str, list[str]] = {}

    def stand_in(self, argv: list[str]) -> list:  # noqa: ANN001
        name = self.file_of(argv[0] if argv[0] in self.questions else '')
        seen[name] = argv
        if name == 'evaluation_crf':
            raise ZeroDivisionError('division by zero')
        return [verdict(name, 'a figure', name != 'step_share')]

    monkeypatch.setattr(benchmark, '__call__', stand_in)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    common = ['--out-dir', str(tmp_path), '--threads', '1', '--machine', 'here']
    assert module.main(['--quick', *common]) == 1
    assert seen['step_share'] == [*common, '--quick', '--device', 'cpu'] and 'gpu_rate' not in seen
    assert seen['evaluation_scoring'] == ['scoring', *common, '--quick']
    printed = capsys.readouterr().out.splitlines()
    assert 'FAILS: evaluation_crf runs: ZeroDivisionError: division by zero' in printed
    assert 'FAILS: step_share: a figure' in printed and 'holds: steps_hosts: a figure' in printed
    assert module.main([*common, '--only', 'steps_hosts', '--repeats', '3']) == 0
    assert seen['steps_hosts'][-4:] == ['--repeats', '3', '--device', 'cpu']
    # What the second run measured anew takes the place of what the first one found.
    kept = [row['script'] for row in read(tmp_path / 'requirements_here.csv')]
    assert len(kept) == len(set(kept)) == 26 and kept[-1] == 'steps_hosts'


@pytest.mark.filterwarnings('ignore::UserWarning')
def test_eagles_straight_line_is_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """By one solver: the signs of eigenvectors are its own."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    eagle = importlib.import_module('eagle')
    monkeypatch.setattr(
        'omh_mmseg.models.losses.eigen_cue.largest_eigenvectors',
        lambda matrices, count: torch.linalg.eigh(torch.eye(len(matrices[0])) - matrices).eigenvectors[..., :count],
    )
    inputs = [values.double() if values.is_floating_point() else values for values in eagle.inputs_of(2, 4)]
    inputs = [values.detach().requires_grad_() if number in (1, 2) else values for number, values in enumerate(inputs)]
    found, gradients = {}, {}
    for name, form in eagle.FORMS.items():
        found[name] = form(*inputs)
        gradients[name] = torch.autograd.grad(found[name], inputs[1:3])
    torch.testing.assert_close(*found.values(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(*gradients.values(), rtol=1e-7, atol=1e-12)


def rounded(value: float) -> str:
    """Three significant digits, no exponent."""
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f'{value:.3g}' if abs(value) < 1000 else f'{value:.0f}'


def test_the_figures_of_the_page_stand_in_the_files() -> None:
    *parts, rest = re.split(r'\[CSV\]\(\.\./(benchmarks/results/[\w.-]+\.csv)\)', PAGE.read_text())
    assert '|' not in rest and len(parts) == 2 * 22
    for text, path in zip(parts[::2], parts[1::2]):
        rows = read(REPOSITORY / path)
        values = [float(value) for row in rows for value in row.values() if re.fullmatch(NUMBER, value)]
        # Times of steps are given in seconds.
        known = {rounded(value) for value in values} | {rounded(value / 1e3) for value in values}
        cells = [cell.strip() for line in text.splitlines() if line.startswith('|') for cell in line.split('|')]
        numbers = [cell for cell in cells if re.fullmatch(NUMBER, cell)]
        assert numbers and not set(numbers) - known, f'{path} lacks {sorted(set(numbers) - known)}'
        first = rows[0]
        threads = f'{first["threads"]} thread{"s" if first["threads"] != "1" else ""}'
        caption = f'{threads}, load {first["load"]}, commit {first["commit"]}, {first["date"]}:'
        assert ' '.join(text.split()).endswith(caption), path


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
    environment = load('common').start(SimpleNamespace(threads=1, machine=None))
    assert set(environment['machine']) <= set('abcdefghijklmnopqrstuvwxyz0123456789-')
    assert environment['machine'].endswith('-1threads')
