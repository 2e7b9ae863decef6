"""The commands that analyse a hierarchy, on a run of 4 steps."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

TOOLS = 'analysis_tools'
PLANS = ('plan, usage marginals', 'plan, uniform marginals')


def read_csv(path: Path) -> list[dict[str, str]]:
    with open(path, newline='') as file:
        return list(csv.DictReader(file))


def pictures(folder: Path) -> set[str]:
    found = sorted(folder.glob('*.png'))
    for path in found:
        with Image.open(path) as picture:
            assert min(picture.size) > 200
    return {path.name for path in found}


@pytest.fixture(scope='module')
def checkpoints(trained) -> list[Path]:
    return [trained.work_dir / f'iter_{step}.pth' for step in (2, 4)]


@pytest.mark.slow
def test_plans(trained, checkpoints, command, run, tmp_path):
    words = command(f'{TOOLS}/hierarchy.py', 'plans', '--runs', trained.work_dir, '--checkpoints', *checkpoints,
                    '--entropy-weights', 0.01, 0.05, 1, '--out', tmp_path)  # fmt: skip
    said = run(tmp_path, words)
    assert '| solved anew |' in said and '| trained ' in said
    steps = read_csv(tmp_path / 'training.csv')
    assert [int(row['step']) for row in steps] == [1, 2, 3, 4]
    assert float(steps[0]['entropy_weight']) == 0.05
    solved = [row for row in read_csv(tmp_path / 'entropy_weight.csv') if row['source'] == 'solved anew']
    assert len(solved) == 2 * 3 * 2
    by_weight = {float(row['entropy_weight']): float(row['sparsity']) for row in solved if row['levels'] == '23'}
    assert by_weight[0.01] < by_weight[0.05] < by_weight[1]
    assert pictures(tmp_path) == {'training.png', 'entropy_weight.png'}
    assert 'give runs' in run(tmp_path, command(f'{TOOLS}/hierarchy.py', 'plans'), status=1)


@pytest.mark.slow
def test_scores_and_recovery(trained, checkpoints, command, run, tmp_path):
    out = tmp_path / 'scores'
    said = run(tmp_path, command(f'{TOOLS}/hierarchy.py', 'scores', trained.config, *checkpoints, '--out', out,
                                 options=trained.options))  # fmt: skip
    assert '| level3 |' in said and '+-' in said
    rows = read_csv(out / 'scores.csv')
    assert len(rows) == 2 * 4 * 3
    one_to_one = {(row['head'], row['labels']) for row in rows if row['mIoU']}
    assert one_to_one == {('probe', 'group'), ('level1', 'group'), ('level2', 'object'), ('level3', 'part')}
    assert pictures(out) == {'level_scores.png'}
    # The level-1 score of the validation that ended the training, which left no class out here.
    (validated,) = (line for line in trained.figures if 'level1/aAcc' in line)
    by_place = {(row['run'].split('_')[-1], row['head'], row['labels']): row for row in rows}
    last = by_place['4', 'level1', 'group']
    assert float(last['aAcc']) == pytest.approx(validated['level1/aAcc'], abs=0.01)

    out = tmp_path / 'recovery'
    said = run(
        tmp_path,
        command(f'{TOOLS}/hierarchy.py', 'recovery', trained.config, *checkpoints, '--permutations', 20, '--out', out,
                '--control', trained.config, checkpoints[0], options=trained.options),
    )  # fmt: skip
    assert 'level 1: group, level 2: object, level 3: part' in said
    rows = read_csv(out / 'recovery.csv')
    assert len(rows) == 3 * 2 * 6
    assert {row['parents'] for row in rows} == {*PLANS, 'overlap', 'average', 'ward', 'chance'}
    for row in rows:
        assert 0 <= float(row['agreement']) <= 1 and -1 <= float(row['ari_1']) <= 1
    # The same checkpoint under the other name.
    plans = [row for row in rows if (row['clusters'], row['parents']) == ('learned', PLANS[0])]
    assert plans[0]['model'] == 'OMH' and plans[2]['model'] == 'control'
    assert {key: value for key, value in plans[0].items() if key not in ('model', 'run')} == {
        key: value for key, value in plans[2].items() if key not in ('model', 'run')
    }
    assert len(read_csv(out / 'gains.csv')) == 2 * 11
    assert pictures(out) == {'recovery.png'}


@pytest.mark.slow
def test_stability_and_parts(trained, checkpoints, command, run, tmp_path):
    out = tmp_path / 'stability'
    renumbered = tmp_path / 'renumbered.pth'
    saved = torch.load(checkpoints[1], weights_only=False)
    for level, size in enumerate((6, 12, 24)):
        order = torch.randperm(size, generator=torch.Generator().manual_seed(level))
        saved['state_dict'][f'omh_head.centres.{level}'] = saved['state_dict'][f'omh_head.centres.{level}'][order]
    torch.save(saved, renumbered)
    said = run(tmp_path, command(f'{TOOLS}/hierarchy.py', 'stability', trained.config, *checkpoints, renumbered,
                                 '--permutations', 50, '--out', out, options=trained.options))  # fmt: skip
    assert ' pairs |' in said
    clusters, parents = read_csv(out / 'clusters.csv'), read_csv(out / 'parents.csv')
    assert len(clusters) == 3 * 3 and [row['levels'] for row in parents] == 6 * ['1-2', '2-3']
    # The same clusters and the same tree by other numbers; k-means came between the first two checkpoints.
    equal, other = ([row for row in clusters if row['second'].endswith('renumbered') and row['first'].endswith(first)]
                    for first in ('iter_4', 'iter_2'))  # fmt: skip
    assert [float(row['ari']) for row in equal] == pytest.approx([1, 1, 1])
    assert len(other) == 3 and all(float(row['ari']) < 1 for row in other)
    same_tree = [row for row in parents if row['first'].endswith('iter_4') and row['second'].endswith('renumbered')]
    assert [float(row['agreement']) for row in same_tree] == [1, 1, 1, 1]
    assert pictures(out) == {'stability.png'}
    failed = run(tmp_path, command(f'{TOOLS}/hierarchy.py', 'stability', trained.config, checkpoints[0]), status=1)
    assert 'two checkpoints at least' in failed

    out = tmp_path / 'parts'
    groups = tmp_path / 'groups.json'
    groups.write_text(json.dumps({'half': {'sky': ['clear air', 'cloud'], 'wood': ['crown', 'trunk']}}))
    run(
        tmp_path,
        command(f'{TOOLS}/hierarchy.py', 'parts', trained.config, checkpoints[1], '--labels', 'half', '--groups',
                groups, '--images', 2, '--out', out, options=trained.options),
    )  # fmt: skip
    rows = read_csv(out / 'clusters.csv')
    assert len(rows) == 6 + 12 + 24 and {row['class'] for row in rows} <= {'', 'sky', 'wood'}
    assert 'From each finest cluster up to level 1' in (out / 'part_whole.md').read_text()
    assert pictures(out) == {'part_whole.png', 'tree.png'}
    unknown = (trained.config, checkpoints[1], '--labels', 'x')
    words = command(f'{TOOLS}/hierarchy.py', 'parts', *unknown, options=trained.options)
    failed = run(tmp_path, words, status=1)
    assert "--labels must be one of ['group', 'object', 'part']" in failed


@pytest.mark.slow
def test_clusters_of_the_border(trained, checkpoints, command, run, tmp_path):
    out = tmp_path / 'border'
    said = run(
        tmp_path,
        command(f'{TOOLS}/border_clusters.py', trained.config, checkpoints[1], '--out', out, options=trained.options),
    )
    assert 'run: ' in said and 'of the border' in said
    rows = read_csv(out / 'border.csv')
    assert {row['clustering'] for row in rows} == {'probe', 'level1', 'level2', 'level3'}
    assert len(rows) == 4 * (6 + 6 + 12 + 24)
    for side in ('top', 'left'):
        firsts = [float(row['line_1']) for row in rows if (row['clustering'], row['side']) == ('level2', side)]
        assert sum(firsts) == pytest.approx(1)
    few = command(f'{TOOLS}/border_clusters.py', trained.config, checkpoints[1], '--images', 2, '--out', out,
                  options=trained.options)  # fmt: skip
    assert 'run: 2 images are too few' in run(tmp_path, few)
