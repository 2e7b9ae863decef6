"""Curves and effects of a sweep: what is drawn, and where."""

from __future__ import annotations

from dataclasses import replace

import pytest
from PIL import Image

from omh_mmseg.study import curves as sweep_curves
from omh_mmseg.study.curves import draw_figure, draw_figures
from omh_mmseg.study.schedule import Schedule, SweepRun

WEIGHTS = (0.01, 0.1)


def rows() -> list[dict]:
    found = [dict(name='host', curve='host', x=None, seed=seed, scores={'probe/mIoU': 20.0 + seed}) for seed in (0, 1)]
    found += [
        dict(name=f'w {x}', curve='w', x=x, seed=seed, scores={'level1/mIoU': 30.0 + seed, 'probe/mIoU': 10.0})
        for x in WEIGHTS for seed in (0, 1)
    ]  # fmt: skip
    return [dict(row, status='finished') for row in found] + [dict(name='bad', seed=0, status='failed', error='x')]


SCHEDULE = Schedule(
    (SweepRun('host', 'x.py', references=()), *(SweepRun(f'w {x}', 'x.py', curve='w', x=x) for x in WEIGHTS)),
    references=('host',),
)


@pytest.fixture
def saved(monkeypatch, tmp_path) -> list:
    """The figures that were saved."""
    figures: list = []
    save = sweep_curves.save_figure
    monkeypatch.setattr(sweep_curves, 'save_figure', lambda figure, path: figures.append(figure) or save(figure, path))
    return figures


def test_curves(tmp_path, saved):
    figure = dict(kind='curves', file='c.png', curves=['w'], x_label='weight', log_x=True, references=['host'],
                  title='t', panels=[dict(label='mIoU', metrics=['level1/mIoU', 'probe/mIoU']),
                                     dict(metrics=['train/absent'])])  # fmt: skip
    path = draw_figure(tmp_path / 'c.png', figure, rows(), SCHEDULE)
    assert Image.open(path).size[0] > 300
    (axes,) = saved[0].axes  # the panel without values is left out
    level, probe = axes.containers
    assert level.lines[0].get_ydata().tolist() == [30.5, 30.5] and probe.lines[0].get_ydata().tolist() == [10.0, 10.0]
    assert level.lines[0].get_xdata() == pytest.approx(WEIGHTS, rel=0.1)
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ['host, probe mIoU', 'level 1 mIoU', 'probe mIoU']
    assert axes.get_xscale() == 'log' and axes.get_xticks().tolist() == list(WEIGHTS)
    (line,) = (line for line in axes.lines if line.get_label() == 'host, probe mIoU')
    assert list(line.get_ydata()) == [20.5, 20.5]


def test_references_of_a_panel(tmp_path, saved):
    panel = dict(metrics=['level1/mIoU'], references=[])
    figure = dict(kind='curves', file='c.png', curves=['w'], references=['host'], panels=[panel])
    draw_figure(tmp_path / 'c.png', figure, rows(), SCHEDULE)
    assert [text.get_text() for text in saved[0].axes[0].get_legend().get_texts()] == ['level 1 mIoU']
    assert saved[0].axes[0].containers[0].lines[0].get_xdata() == pytest.approx(WEIGHTS)


@pytest.mark.parametrize(('reference', 'means'), [('host', [10.0, 10.0]), ('*', [10.0, 10.0]), (None, [30.5, 30.5])])
def test_effects(tmp_path, saved, reference, means):
    figure = dict(kind='effects', file='e.png', metrics=['level1/mIoU'], reference=reference)
    assert draw_figure(tmp_path / 'e.png', figure, rows(), SCHEDULE) == tmp_path / 'e.png'
    (axes,) = saved[0].axes
    assert [container.lines[0].get_xdata().item() for container in axes.containers] == means
    assert [text.get_text() for text in axes.get_yticklabels()] == ['w 0.01', 'w 0.1']


def test_nothing_to_draw(tmp_path):
    for figure in (dict(kind='effects', file='e.png', metrics=['level2/mIoU']),
                   dict(kind='curves', file='c.png', curves=['v'], panels=[dict(metrics=['probe/mIoU'])])):  # fmt: skip
        assert draw_figure(tmp_path / figure['file'], figure, rows(), SCHEDULE) is None
    assert not list(tmp_path.iterdir())


def test_names():
    labels = {'level1/mIoU': 'level 1 mIoU', 'train/omh_sparsity_12': 'sparsity, levels 1 and 2',
            'train/omh_used_3': 'level 3', 'ms_per_step': 'ms per step'}  # fmt: skip
    assert {metric: sweep_curves._label(metric) for metric in labels} == labels


def test_figures_of_a_schedule(tmp_path):
    figures = (
        dict(kind='effects', file='e.png', metrics=['level1/mIoU'], reference='host'),
        dict(kind='curves', file='absent.png', curves=['w'], panels=[dict(metrics=['level2/mIoU'])]),
    )
    assert draw_figures(rows(), replace(SCHEDULE, figures=figures), tmp_path) == [tmp_path / 'e.png']
