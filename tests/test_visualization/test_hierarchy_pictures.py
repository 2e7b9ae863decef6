"""Pictures of the analyses of hierarchies: what is where in them, and the errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from omh_mmseg.visualization import level_scores, part_whole, plan_curves, recovery, stability

Drawn = Callable[[ModuleType], list[Figure]]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[Drawn]:
    """Have a module keep its figures, which are still written."""

    def keep(module: ModuleType) -> list[Figure]:
        figures: list[Figure] = []
        save = module.save_figure

        def saved(figure: Figure, path: Path) -> Path:
            figures.append(figure)
            return save(figure, path)

        monkeypatch.setattr(module, 'save_figure', saved)
        return figures

    yield keep


def texts_inside(figure: Figure) -> None:
    """Every text lies within the figure, and notes and titles overlap neither each other nor labels."""
    renderer = figure.canvas.get_renderer()
    width, height = figure.canvas.get_width_height()
    titles = [axes.title for axes in figure.axes] + [axes._left_title for axes in figure.axes]
    labels = []
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        shown = [low <= place <= high for place in axis.get_majorticklocs()]
        labels += [axis.label, *(label for label, flag in zip(axis.get_ticklabels(), shown) if flag)]
    for text in [*figure.texts, *titles, *labels]:
        if text.get_text() and text.get_visible():
            box = text.get_window_extent(renderer)
            inside = box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1
            assert inside, (text.get_text(), box)
    large = [text for text in [*figure.texts, *titles] if text.get_text()]
    boxes = [text.get_window_extent(renderer) for text in large]
    for number, box in enumerate(boxes):
        for other in range(number):
            assert not box.overlaps(boxes[other]), (large[number].get_text(), large[other].get_text())
    for label in (label for label in labels if label.get_text()):
        for text, box in zip(large, boxes):
            assert not box.overlaps(label.get_window_extent(renderer)), (text.get_text(), label.get_text())


def test_training_curves(tmp_path: Path, drawn: Drawn) -> None:
    figures = drawn(plan_curves)
    runs = {
        name: [
            {'step': step, 'sparsity_12': start / step, 'parents_mean_12': 2.0, 'used_1': 1.0, 'used_2': 0.5}
            for step in steps
        ]
        for name, start, steps in (('a', 0.4, (1, 2, 4)), ('b', 0.8, (1, 2)))
    }
    path = plan_curves.draw_plan_training(tmp_path / 'new' / 'a.png', runs)
    with Image.open(path) as picture:
        assert min(picture.size) > 300
    sparsity, parents, used = figures[0].axes
    lines = [line.get_xydata().tolist() for line in sparsity.lines if len(line.get_xdata())]
    expected_lines = [[1, 0.4], [2, 0.2], [4, 0.1]], [[1, 0.8], [2, 0.4]], [[1, 0.6], [2, 0.3]]
    for line, expected in zip(lines, expected_lines, strict=True):
        np.testing.assert_allclose(line, expected)
    assert [text.get_text() for text in used.get_legend().get_texts()] == ['level 1', 'level 2']
    assert [text.get_text() for text in parents.get_legend().get_texts()] == ['levels 1, 2']
    texts_inside(figures[0])
    plan_curves.draw_plan_training(path, {'a': runs['a']})
    assert len([line for line in figures[1].axes[0].lines if len(line.get_xdata())]) == 1
    with pytest.raises(ValueError, match='no run to draw'):
        plan_curves.draw_plan_training(path, {})


def test_sweep_of_entropy_weights(tmp_path: Path, drawn: Drawn) -> None:
    figures = drawn(plan_curves)
    solved = [
        dict(entropy_weight=weight, levels='12', sparsity=value + shift, parents_mean=1.0, parents_max=2.0)
        for weight, value in ((0.1, 0.5), (0.01, 0.2)) for shift in (0, 0.1)
    ] + [dict(entropy_weight=0.001, levels='12', error='not finite')]  # fmt: skip
    trained = [dict(entropy_weight=0.05, levels='23', sparsity=0.3, parents_mean=1.5, parents_max=3.0)]
    plan_curves.draw_plan_sweep(tmp_path / 'a.png', solved, trained)
    first = figures[0].axes[0]
    assert first.get_xscale() == 'log'
    np.testing.assert_allclose(first.lines[0].get_xydata(), [[0.01, 0.25], [0.1, 0.55]])
    assert [0.05, 0.3] in [point for line in first.lines for point in line.get_xydata().tolist()]
    texts_inside(figures[0])
    with pytest.raises(ValueError, match='no solved plan to draw'):
        plan_curves.draw_plan_sweep(tmp_path / 'a.png', solved[-1:])


@pytest.mark.parametrize('count', [2, 6])
def test_stability(tmp_path: Path, drawn: Drawn, count: int) -> None:
    figures = drawn(stability)
    names = [f'a_rather_long_name_of_a_run_{number}' for number in range(count)]
    pairs = [(a, b) for number, a in enumerate(names) for b in names[number + 1 :]]
    clusters = [dict(first=a, second=b, level=level, ari=0.1 * level) for a, b in pairs for level in (1, 2, 3)]
    parents = [
        dict(first=a, second=b, levels=levels, agreement=0.8, chance=0.2) for a, b in pairs for levels in ('1-2', '2-3')
    ]
    stability.draw_stability(tmp_path / 'a.png', names, clusters, parents)
    texts_inside(figures[0])
    values = figures[0].axes[1].images[0].get_array()
    assert values.mask.diagonal().all() and values[0, 1] == values[1, 0] == pytest.approx(0.2)
    assert len(figures[0].axes) == 5
    parents_matrix = figures[0].axes[4]
    assert parents_matrix.get_title('left') == 'parents, levels 2 and 3 (chance 0.20)'
    assert parents_matrix.images[0].get_array()[1, 0] == pytest.approx(0.8)
    stability.draw_stability(tmp_path / 'one_level.png', names, clusters[:1], [])
    with pytest.raises(ValueError, match='two runs at least'):
        stability.draw_stability(tmp_path / 'a.png', names[:1], clusters, parents)


@pytest.mark.parametrize(('sizes', 'classes'), [((6, 12, 24), 24), ((27, 54, 108), 171), ((3,), 2)])
def test_parts_and_wholes(
    tmp_path: Path, drawn: Drawn, make_hierarchy: Callable, sizes: tuple[int, ...], classes: int
) -> None:
    figures = drawn(part_whole)
    hierarchy = make_hierarchy(sizes)
    counts = np.random.default_rng(0).integers(0, 50, (sizes[-1], classes))
    counts[0] = 0
    counts[1] = 0
    counts[1, 1] = 7
    names = [f'class number {number}' for number in range(classes)]
    part_whole.draw_part_whole(tmp_path / 'a.png', hierarchy, counts, names)
    texts_inside(figures[0])
    shares = figures[0].axes[0].images[0].get_array()
    assert shares.shape == (sizes[-1] - 1, classes)
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    rows = [label.get_text() for label in figures[0].axes[1].get_yticklabels()]
    assert shares[rows.index('1'), 1] == 1 and '0' not in rows
    with pytest.raises(ValueError, match='no cluster has a pixel'):
        part_whole.draw_part_whole(tmp_path / 'a.png', hierarchy, counts * 0, names)
    with pytest.raises(ValueError, match='do not fit'):
        part_whole.draw_part_whole(tmp_path / 'a.png', hierarchy, counts, names[1:])


@pytest.mark.parametrize('runs', [1, 3])
def test_level_scores(tmp_path: Path, drawn: Drawn, runs: int) -> None:
    figures = drawn(level_scores)
    figures_of_row = {key: 0.5 for key, _, _ in level_scores.PANELS}
    figures_of_row |= {f'{key} spread': 0.1 for key in figures_of_row}
    rows = [
        {'head': head, 'clusters': size, 'labels': labels, 'classes': classes, 'runs': runs} | figures_of_row
        for head, size in (('probe', 27), ('level1', 27), ('level2', 54))
        for labels, classes in (('class', 27), ('leaf', 171))
    ]
    rows[1]['mIoU'] = float('nan')
    rows[0]['mIoU'] = 12.34
    level_scores.draw_level_scores(tmp_path / 'a.png', rows)
    first = figures[0].axes[0]
    cells = [text.get_text() for text in first.texts]
    assert cells[:2] == ['12.3\n±0.1' if runs > 1 else '12.3', '']
    assert [label.get_text() for label in first.get_yticklabels()] == [
        'probe\n27 clusters', 'level1\n27 clusters', 'level2\n54 clusters'
    ]  # fmt: skip
    texts_inside(figures[0])
    with pytest.raises(ValueError, match='no scores to draw'):
        level_scores.draw_level_scores(tmp_path / 'a.png', [])


@pytest.mark.parametrize('models', [('OMH',), ('OMH', 'control')])
def test_recovery(tmp_path: Path, drawn: Drawn, models: tuple[str, ...]) -> None:
    figures = drawn(recovery)
    rows = [
        dict(model=model, clusters=clusters, parents=parents, run=run, agreement=0.5 + 0.1 * run, ari_1=-0.2)
        for model in models for run in range(3) for clusters in ('learned', 'k-means')
        for parents in ('plan', 'overlap', 'average', 'ward', 'chance')
    ]  # fmt: skip
    titles = {'agreement': 'parents right', 'ari_1': 'ARI', **{f'x{n}': f'purity of the tree, {n}' for n in range(4)}}
    recovery.draw_recovery(tmp_path / 'a.png', rows, titles)
    first, second = figures[0].axes[:2]
    labels = [label.get_text() for label in first.get_yticklabels()]
    assert labels[2].endswith('learned, average linkage') and len(labels) == 10 * len(models)
    assert first.lines[0].get_xdata().tolist() == [0.5, 0.6, 0.7]
    assert first.lines[1].get_xdata().tolist() == pytest.approx([0.6, 0.6])
    assert second.get_xlim()[0] < -0.2
    texts_inside(figures[0])
    with pytest.raises(ValueError, match='no run to draw'):
        recovery.draw_recovery(tmp_path / 'a.png', [], titles)
