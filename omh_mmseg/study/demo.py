"""The demo: STEGO alone and with OMH on the demo scenes, their scores and the learned hierarchy."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner
from rich.progress import track
from torch.utils.data import DataLoader

from omh_mmseg.analysis.parent_agreement import ParentAgreement, parent_agreement
from omh_mmseg.apis.protocols import compare_protocols, protocol_table
from omh_mmseg.datasets.demo_scenes import HIERARCHY
from omh_mmseg.engine import launch
from omh_mmseg.evaluation import confusion_matrix, hungarian_assignment
from omh_mmseg.models.segmentors import UnsupervisedSegmentor
from omh_mmseg.preparation.neighbours import prepare_neighbours
from omh_mmseg.registry import DATASETS
from omh_mmseg.transport import Hierarchy
from omh_mmseg.utils.files import replaced_when_complete
from omh_mmseg.visualization import (
    cluster_palettes,
    draw_hierarchy_tree,
    draw_plan_matrices,
    draw_segmentation_grid,
    match_colours,
)

TRUE_LEVELS = ('group', 'object', 'part')
PICTURES = ('segmentations.png', 'plans.png', 'hierarchy.png')
SHOWN_IMAGES = 6
PROTOCOL_OPTIONS = {'model.test_cfg.levels': [1]}
"""Finer levels are not scored, so the CRF need not refine them."""


def run_demo(
    host_config: str, omh_config: str, work_dir: str | os.PathLike[str], options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Train and score both configs, then measure and draw the hierarchy of the second.

    Args:
        host_config: Config file of the host alone.
        omh_config: Config file of host + OMH with as many levels as the scenes' labels have.
        work_dir: Folder of both runs, the pictures and ``summary.json``.
        options: Overrides of both configs, as ``--cfg-options`` gives them.

    Returns:
        The content of ``summary.json``: ``host`` and ``omh`` scores in percent, ``protocols`` (the second model's by
        each), ``hierarchy.parent_agreement`` and ``hierarchy.chance`` in [0, 1], ``pictures``, ``seed``, ``seconds``.
    """
    start = time.monotonic()
    work_dir = Path(work_dir)
    summary: dict[str, Any] = {}
    for name, path in (('host', host_config), ('omh', omh_config)):
        config = launch.load_config(path, str(work_dir / name), options=options)
        prepare_neighbours(config, force=True, if_missing=True)
        runner = launch.build_runner(config)
        runner.train()
        summary[name] = _scores(runner)
    summary['protocols'] = compare_protocols(runner.model, config, demo_protocols(config), PROTOCOL_OPTIONS)
    counts, shown = segment_levels(runner.model, config)
    hierarchy = runner.model.omh_head.hierarchy()
    agreements = compare_with_truth(hierarchy, counts)
    used = np.concatenate([agreement.used for agreement in agreements])
    summary['hierarchy'] = dict(
        parent_agreement=float(np.concatenate([agreement.agreeing for agreement in agreements])[used].mean()),
        chance=float(np.average([a.chance for a in agreements], weights=[a.used.sum() for a in agreements])),
        pairs=[
            dict(levels=[level, level + 1], parent_agreement=pair.agreement, chance=pair.chance)
            for level, pair in enumerate(agreements, start=1)
        ],
    )
    summary['pictures'] = [str(path) for path in _draw(work_dir, hierarchy, counts, shown)]
    summary['seed'] = config.randomness.seed
    summary['seconds'] = round(time.monotonic() - start, 1)
    with replaced_when_complete(work_dir / 'summary.json') as file:
        file.write(f'{json.dumps(summary, indent=2)}\n'.encode())
    return summary


def demo_protocols(config: Config) -> list[str]:
    """The protocols of the literature at the size of the scenes."""
    (side,) = (step['size'] for step in config.test_pipeline if step['type'] == 'ResizeShortSide')
    named = ('stego', 'stego', 'stego', 'hp', 'smooseg', 'stego')
    options = ('-no-crf-no-flip', '-no-crf', '-no-flip', '', '', '')
    return ['mmseg', *(f'{name}-{side}{option}' for name, option in zip(named, options))]


def compare_with_truth(hierarchy: Hierarchy, counts: list[np.ndarray]) -> list[ParentAgreement]:
    """Agreement of each level pair's parents with the scenes' own tree.

    Args:
        hierarchy: Learned hierarchy of three levels.
        counts: Per level the pixels of each cluster and true class of the same level, shape (K_l, classes).
    """
    return [
        parent_agreement(counts[level + 1], counts[level], parents.numpy(), HIERARCHY.parents(TRUE_LEVELS[level + 1]))
        for level, parents in enumerate(hierarchy.parents)
    ]


def segment_levels(
    model: UnsupervisedSegmentor, config: Config
) -> tuple[list[np.ndarray], list[dict[str, np.ndarray]]]:
    """Predictions of every level on the validation scenes, against the labels of the same granularity.

    Returns:
        Per level the counts (K_l, classes of that level); and for the first images the picture, the true groups, the
        host's probe and each level's map.

    Raises:
        ValueError: If the model has no OMH head with one level per level of labels.
    """
    if model.omh_head is None or len(model.omh_head.level_sizes) != len(TRUE_LEVELS):
        raise ValueError(f'The demo needs model.omh_head with {len(TRUE_LEVELS)} levels, one for each of {TRUE_LEVELS}')
    dataset_config = {**config.val_dataloader.dataset, 'level': 'part'}
    loader = DataLoader(DATASETS.build(dataset_config), batch_size=8, collate_fn=pseudo_collate)
    fields = [f'pred_level{level}' for level in range(1, len(TRUE_LEVELS) + 1)]
    to_level = [HIERARCHY.part_to(level) for level in TRUE_LEVELS]
    sizes = model.omh_head.level_sizes
    counts = [np.zeros((size, len(HIERARCHY.names[level])), np.int64) for size, level in zip(sizes, TRUE_LEVELS)]
    shown: list[dict[str, np.ndarray]] = []
    model.eval()
    for batch in track(loader, 'segmenting at every level'):
        with torch.no_grad():
            samples = model.test_step(batch)
        for image, sample in zip(batch['inputs'], samples):
            parts = sample.gt_sem_seg.data[0].cpu().numpy()
            maps = [sample.get(field).data[0].cpu().numpy() for field in fields]
            for total, clusters, table in zip(counts, maps, to_level):
                total += confusion_matrix(clusters, np.asarray(table)[parts], *total.shape)
            if len(shown) < SHOWN_IMAGES:
                picture = image.permute(1, 2, 0).numpy()[..., ::-1]
                probe = sample.pred_sem_seg.data[0].cpu().numpy()
                shown.append(dict(image=picture, truth=np.asarray(to_level[0])[parts], probe=probe))
                shown[-1].update(zip(fields, maps))
    return counts, shown


def report(summary: dict[str, Any]) -> str:
    """The summary as text for a terminal."""
    lines = ['', f'{"scores on the demo scenes (percent)":38}{"mIoU":>8}{"accuracy":>10}']
    for title, run, head in (
        ('host, cluster probe', 'host', 'probe'),
        ('host + OMH, cluster probe', 'omh', 'probe'),
        ('host + OMH, level 1', 'omh', 'level1'),
        ('host, linear probe (uses labels)', 'host', 'linear'),
        ('host + OMH, linear probe (uses labels)', 'omh', 'linear'),
    ):
        scores = summary[run][head]
        lines.append(f'{title:38}{scores["mIoU"]:8.1f}{scores["aAcc"]:10.1f}')
    hierarchy = summary['hierarchy']
    lines.append('')
    lines.append(
        f'plan parents that agree with the true hierarchy: {hierarchy["parent_agreement"]:.0%} '
        f'(by chance {hierarchy["chance"]:.0%})'
    )
    lines += [f'picture: {path}' for path in summary['pictures']]
    lines += ['', 'host + OMH by each protocol (percent)', protocol_table(summary['protocols']), '']
    lines.append(f'seed {summary["seed"]}, {summary["seconds"]:.0f} seconds')
    return '\n'.join(lines)


def _scores(runner: Runner) -> dict[str, dict[str, float]]:
    """Scores of the validation at the end of the training, by head."""
    results = runner.val_evaluator.metrics[0].last_result
    return {
        head: dict(mIoU=round(scores.mean_iou, 3), aAcc=round(scores.pixel_accuracy, 3))
        for head, scores in results.items()
    }


def _draw(
    work_dir: Path, hierarchy: Hierarchy, counts: list[np.ndarray], shown: list[dict[str, np.ndarray]]
) -> list[Path]:
    colours = np.asarray(HIERARCHY.palettes['group'])
    assignment = hungarian_assignment(counts[0])
    palettes = cluster_palettes(hierarchy, colours, assignment)
    probe_counts = sum(confusion_matrix(item['probe'], item['truth'], *counts[0].shape) for item in shown)
    levels = [[item[f'pred_level{level}'] for item in shown] for level in range(1, len(palettes) + 1)]
    sizes = hierarchy.level_sizes
    grid, plans, tree = (work_dir / name for name in PICTURES)
    draw_segmentation_grid(
        grid,
        [item['image'] for item in shown],
        [[item['probe'] for item in shown], *levels],
        [match_colours(colours, hungarian_assignment(np.asarray(probe_counts))), *palettes],
        truth=[item['truth'] for item in shown],
        truth_palette=colours,
        classes=HIERARCHY.names['group'],
        titles=['image', 'truth', 'cluster probe', *(f'OMH level {i}\n{k} clusters' for i, k in enumerate(sizes, 1))],
    )
    draw_plan_matrices(plans, hierarchy, palettes)
    usage = [level.sum(1) for level in counts]
    names = [
        [HIERARCHY.names[truth][row.argmax()] if row.any() else None for row in level]
        for truth, level in zip(TRUE_LEVELS, counts)
    ]
    draw_hierarchy_tree(tree, hierarchy, palettes, usage, names)
    return [grid, plans, tree]
