"""Schedules of sweeps: what a file or a command line asks for, and what of it is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope, init_default_scope

import omh_mmseg  # noqa: F401
from omh_mmseg.registry import MODELS
from omh_mmseg.study.job import SweepJob, job_config, pairs_settings, settings
from omh_mmseg.study.schedule import Schedule, SweepRun
from omh_mmseg.study.schedule_reader import parse_placeholders, parse_run, read_schedule
from omh_mmseg.utils.config import read_config

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'
STUDY = sorted((CONFIGS / 'study').glob('*.py'))
OWN_DATA = dict(ablations='vit-t8_demo', ablations_photos='mobilenet-v2_folder')
HOST, TWIN = (str(CONFIGS / f'{name}_vit-t8_demo.py') for name in ('stego', 'omh_stego'))
CONTENT = """
placeholders = dict(host='stego', word='w')
title = 'on {host}'
config = 'configs/omh_{host}.py'
_weights = [0.1, 1]
options = {'train_dataloader.dataset.index': '{word}_{fingerprint}.npz'}
seeds = [4]
references = ['host']
runs = [
    dict(name='host', config='configs/{host}.py', references=[]),
    dict(name='w', options={'a.b': 1}, vary={'model.x': _weights, 'model.y': ['p', 'q']}),
]
columns = ['probe/mIoU']
figures = [dict(kind='curves', file='w.png', curves=['w'], references=['host'], panels=[dict(metrics=['loss'])])]
"""


@pytest.fixture(autouse=True)
def scope(monkeypatch) -> Iterator[None]:
    init_default_scope('mmseg')
    for name in ('OMH_DATA_ROOT', 'OMH_NUM_CLASSES'):
        monkeypatch.delenv(name, raising=False)
    yield
    DefaultScope._instance_dict.clear()


def test_schedule_file(tmp_path):
    (tmp_path / 'schedule.py').write_text(CONTENT)
    schedule = read_schedule(str(tmp_path / 'schedule.py'), {'host': 'hp'})
    assert (schedule.title, schedule.seeds, schedule.references) == ('on hp', (4,), ('host',))
    assert schedule.columns == ('probe/mIoU',)
    assert schedule.options == {'train_dataloader.dataset.index': 'w_{fingerprint}.npz'}
    host, *points = schedule.runs
    assert (host.name, host.config, host.references, host.x) == ('host', 'configs/hp.py', (), None)
    assert [point.name for point in points] == ['w 0.1 p', 'w 0.1 q', 'w 1 p', 'w 1 q']
    assert {point.curve for point in points} == {'w'} and [point.x for point in points] == [0.1, 0.1, 1.0, 1.0]
    assert points[1].options == {'a.b': 1, 'model.x': 0.1, 'model.y': 'q'}
    assert points[1].config == 'configs/omh_hp.py' and points[1].slug == 'w_0.1_q'
    assert schedule.references_of('w 1 q') == ('host',) and schedule.references_of('host') == ()


@pytest.mark.parametrize('ending', ['json', 'yaml'])
def test_other_formats(tmp_path, ending):
    path = tmp_path / f'schedule.{ending}'
    path.write_text(json.dumps(dict(runs=[dict(name='a', config='x.py', options={'b.c': [1, 2]})])))
    (run,) = read_schedule(str(path)).runs
    assert (run.name, run.config, run.options) == ('a', 'x.py', {'b.c': [1, 2]})
    assert read_schedule(str(path)).title == 'schedule'


@pytest.mark.parametrize(('changed', 'by', 'message'), [
    ('seeds = [4]', 'sedes = [4]', r'has sedes; known are title, config'),
    ("dict(name='host', ", 'dict(', r'a run needs a name and a config file'),
    ("config='configs/{host}.py', ", 'cfg=1, ', r"run 'host' has cfg; known are name, config"),
    ('runs = [', 'runs = [3,', r'each of runs is a dict with .*got 3'),
    ("references = ['host']", "references = ['hots']", r"'hots', which is no run; the runs are host, w 0.1 p"),
    ('seeds = [4]', 'seeds = [4, 4]', r'seeds, each once; got \[4, 4\]'),
    ('_weights = [0.1, 1]', '_weights = 3', r'vary maps a setting to a list of values; model.x has 3'),
    ('_weights = [0.1, 1]', '_weights = [1, 1]', r'must differ, also as folder names; got w 1 p, w 1 q'),
    ("curves=['w']", "curves=['v']", r"figure 'w.png' has the curve 'v'; there are host, w"),
    ("kind='curves'", "kind='pie'", r"one of curves, effects; got 'pie'"),
    ("file='w.png'", "file='w.svg'", r"a name that ends in .png; got 'w.svg'"),
    ("panels=[dict(metrics=['loss'])]", 'panels=[]', r'needs panels'),
    ('runs = [', "runs = [dict(name='x', of='y'),", r"run 'x' shows 'y', which is no run that is trained; there are"),
    ('runs = [', "runs = [dict(name='x', of='host', options={}),", r"run 'x' has options; known are name, of, refit"),
    ('columns =', "protocols = ['stegos']\ncolumns =", r"no protocol 'stegos'; known are stego"),
])  # fmt: skip
def test_wrong_schedules(tmp_path, changed, by, message):
    assert changed in CONTENT
    (tmp_path / 'schedule.py').write_text(CONTENT.replace(changed, by))
    with pytest.raises(ValueError, match=message):
        read_schedule(str(tmp_path / 'schedule.py'))


def test_wrong_files_and_placeholders(tmp_path):
    (tmp_path / 'schedule.py').write_text(CONTENT)
    with pytest.raises(FileNotFoundError, match=r'no config file .*schedle\.py .*did you mean .*schedule\.py'):
        read_schedule(str(tmp_path / 'schedle.py'))
    with pytest.raises(ValueError, match=r'has no placeholder hots; it has host, word'):
        read_schedule(str(tmp_path / 'schedule.py'), {'hots': 'x'})
    with pytest.raises(ValueError, match=r"--set takes NAME=VALUE; got 'host'"):
        parse_placeholders(['host'])
    assert parse_placeholders(['host=a=b', 'c=']) == {'host': 'a=b', 'c': ''}


def test_rows_that_show_other_runs():
    schedule = read_schedule(str(CONFIGS / 'study' / 'refit.py'))
    names = [run.name for run in schedule.runs]
    assert names[:6] == ['host', 'host + refit', 'control', 'control + refit', 'OMH', 'OMH + refit']
    assert [run.name for run in schedule.trained] == ['control', 'OMH', 'OMH, share 0.3']
    assert all(schedule.is_refitted(run.name) for run in schedule.trained)
    host, refitted = schedule.runs[:2]
    assert (host.of, host.refit, host.heads) == ('control', False, ('probe',)) and refitted.refit
    assert not read_schedule(str(CONFIGS / 'study' / 'seeds.py')).is_refitted('OMH')


def test_runs_of_the_command_line():
    run = parse_run('no gradient: a/x.py model.local_affinity=features n=(1,2) y=0.5')
    assert run == SweepRun(
        'no gradient', 'a/x.py', {'model.local_affinity': 'features', 'n': '(1,2)', 'y': '0.5'}, curve='no gradient'
    )
    assert parse_run('a/x.py y=1').name == 'x y=1'
    with pytest.raises(ValueError, match="settings KEY=VALUE; 'fast' is none"):
        parse_run('x: a/x.py fast')
    with pytest.raises(ValueError, match='there are no runs'):
        Schedule(())
    with pytest.raises(ValueError, match='must differ, also as folder names; got a b, a/b'):
        Schedule((SweepRun('a b', 'x.py'), SweepRun('a/b', 'x.py')))


# ---- the config of a run


def job(run: SweepRun, seed: int = 3, **options) -> SweepJob:
    return SweepJob(run, seed, 'folder', {key.replace('__', '.'): value for key, value in options.items()})


def test_own_options_win_and_a_host_has_no_omh():
    run = SweepRun('x', TWIN, {'model.omh_head.plan.entropy_weight': 0.01})
    shared = dict(model__omh_head__plan__entropy_weight=0.5, model__omh_head__temperature=0.2, data_root='d')
    config = job_config(job(run, **shared))
    assert (config.model.omh_head.plan.entropy_weight, config.model.omh_head.temperature) == (0.01, 0.2)
    assert config.train_dataloader.dataset.dataset.data_root == 'd'
    assert (config.work_dir, config.randomness.seed) == ('folder', 3)
    shared = dict(model__omh_head__plan__entropy_weight=0.5, model__decode_head__channels=9)
    host = job_config(job(SweepRun('x', HOST), **shared))
    assert host.model.get('omh_head') is None and host.model.decode_head.channels == 9


@pytest.mark.parametrize('before', [None, dict(type='MomentumCentres', momentum=0.9)])
def test_a_part_can_be_replaced_whatever_was_there(before, tmp_path):
    path = tmp_path / 'x.py'
    path.write_text(f'model = dict(omh_head=dict(type="OMHHead"{", centres=" + str(before) if before else ""}))')
    replaced = SweepRun('x', str(path), {'model.omh_head.centres': dict(_delete_=True, type='GradientCentres')})
    for seed in (0, 1):
        config = job_config(SweepJob(replaced, seed, 'folder', {}))
        assert config.model.omh_head.centres == dict(type='GradientCentres')


def test_files_are_read_once_and_not_changed():
    files: dict[str, Config] = {}
    first = job_config(job(SweepRun('x', HOST, {'model.num_classes': 9})), files)
    second = job_config(job(SweepRun('y', HOST)), files)
    assert list(files) == [HOST] and first.model.num_classes == 9 and second.model.num_classes == 6


def test_what_tells_runs_apart():
    base = settings(job_config(job(SweepRun('x', TWIN))))
    assert base == settings(job_config(SweepJob(SweepRun('other name', TWIN), 3, 'elsewhere', {})))
    assert base != settings(job_config(job(SweepRun('x', TWIN), seed=4)))
    assert base != settings(job_config(job(SweepRun('x', TWIN), train_cfg__max_iters=7)))
    pairs = pairs_settings(job_config(job(SweepRun('x', TWIN))))
    assert pairs is not None and pairs == pairs_settings(job_config(job(SweepRun('x', HOST), seed=5)))
    assert pairs != pairs_settings(job_config(job(SweepRun('x', TWIN), data_root='d')))
    assert pairs_settings(job_config(job(SweepRun('x', str(CONFIGS / 'smooseg_vit-t8_demo.py'))))) is None


# ---- the schedules of the study


@pytest.mark.parametrize('data', ['vit-t8_demo', 'mobilenet-v2_folder'])
@pytest.mark.parametrize('path', STUDY, ids=lambda path: path.stem)
def test_every_setting_of_the_study_can_be_built(path, data, monkeypatch):
    if OWN_DATA.get(path.stem, data) != data:
        pytest.skip('its rows change what the configs of other images choose')
    monkeypatch.chdir(CONFIGS.parent)
    schedule = read_schedule(str(path), {'data': data, 'images': 'photos'})
    assert 'photos' in schedule.title and '{' not in schedule.title
    files: dict[str, Config] = {}
    for run in schedule.trained:
        config = job_config(SweepJob(run, 0, 'folder', schedule.options), files)
        if any(key.startswith('model.omh_head') for key in run.options):
            MODELS.build({**config.model.omh_head, 'in_channels': 4, 'num_classes': 6})


def test_a_schedule_finds_its_configs_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_schedule(str(STUDY[0])).runs[0].config == str(CONFIGS / 'stego_vit-t8_demo.py')
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'stego_vit-t8_demo.py').touch()
    assert read_schedule(str(STUDY[0])).runs[0].config == 'configs/stego_vit-t8_demo.py'


@pytest.mark.parametrize('data', ['vit-t8_demo', 'mobilenet-v2_folder'])
def test_rows_of_a_default_are_the_run_of_omh(data, monkeypatch):
    """What the schedules say of all runs is what OMHHead takes by itself, so that --runs-dir keeps one run of it."""
    monkeypatch.chdir(CONFIGS.parent)
    rows = dict(temperature='tau 0.1', expansion='rho 2.0', levels='N 3', weights='matching 0.1', seeds='OMH',
                hosts='STEGO + OMH', ablations='OMH', refit='OMH') | {'lambda': 'lambda 0.05'}  # fmt: skip
    kept = []
    for name, row in rows.items():
        schedule = read_schedule(str(CONFIGS / 'study' / f'{name}.py'), {'data': data})
        (run,) = (run for run in schedule.runs if run.name == row)
        config = job_config(SweepJob(run, 0, 'folder', schedule.options))
        kept.append(settings(config))
    assert all(one == kept[0] for one in kept)
    explicit = MODELS.build({**config.model.omh_head, 'in_channels': 4, 'num_classes': 6})
    implicit = MODELS.build({**read_config(run.config).model.omh_head, 'in_channels': 4, 'num_classes': 6})
    for head in (explicit, implicit):
        assert (head.level_sizes, head.temperature, head.plan.entropy_weight, head.match.loss_weight) == (
            [6, 12, 24], 0.1, 0.05, 0.1
        )  # fmt: skip


def test_the_study_has_a_control_in_every_schedule():
    for path in STUDY:
        # A control has no gradient of the matching, views are HP's alone, and nothing reaches a frozen code.
        if path.stem in ('gradients', 'views', 'refit_frozen'):
            continue
        controls = [run for run in read_schedule(str(path)).trained if 'control' in run.name]
        assert controls, path
        for run in controls:
            assert run.options == {'model.omh_head.match': None, 'model.omh_head.cluster': None}
