"""The demo: STEGO alone and with OMH on the demo scenes, their scores and the learned hierarchy."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.runner import Runner

from omh_mmseg.analysis.level_counts import count_levels, labelled_loader
from omh_mmseg.analysis.trees import pair_agreements, pooled_agreement
from omh_mmseg.apis.inference import SegmentationInferencer
from omh_mmseg.apis.protocols import compare_protocols, protocol_table
from omh_mmseg.apis.refit import REFIT, score_refit
from omh_mmseg.datasets.demo_scenes import HIERARCHY
from omh_mmseg.engine import launch
from omh_mmseg.engine.hooks import HierarchyHook
from omh_mmseg.evaluation.cluster_names import cluster_names, naming_classes
from omh_mmseg.evaluation.scores import confusion_matrix
from omh_mmseg.explorer import ReportOptions, write_report
from omh_mmseg.models.segmentors import UnsupervisedSegmentor
from omh_mmseg.preparation.neighbours import prepare_neighbours
from omh_mmseg.structures.granularity import Granularity
from omh_mmseg.transport import Hierarchy
from omh_mmseg.utils.files import write_text
from omh_mmseg.visualization import (
    cluster_palettes,
    draw_hierarchy_tree,
    draw_plan_matrices,
    draw_segmentation_grid,
    match_colours,
)

PAGE_IMAGES = 24
PICTURES = ('segmentations.png', 'plans.png', 'hierarchy.png')
SHOWN_IMAGES = 6
PROTOCOL_OPTIONS = {'model.test_cfg.levels': [1]}
"""Finer levels are not scored."""
CACHE = 'default_hooks.feature_cache.folder'


def run_demo(
    host_config: str, omh_config: str, work_dir: str | os.PathLike[str], options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Train and score both configs, then measure and draw the hierarchy of the second.

    Both read the frozen features from one cache in ``work_dir``, which changes no score.

    Args:
        host_config: Config file of the host alone.
        omh_config: Config file of host + OMH with as many levels as the scenes' labels have.
        work_dir: Folder of both runs, the pictures and ``summary.json``.
        options: Overrides of both configs, as ``--cfg-options`` gives them.

    Returns:
        The content of ``summary.json``: ``host`` and ``omh`` scores in percent, ``host_refit`` and ``omh_refit`` those
        after a closing refit of all clusterings, which changes no run, ``protocols`` (the second model's by each),
        ``hierarchy.parent_agreement`` and ``hierarchy.chance`` in [0, 1], ``pictures``, ``page``, ``seed``,
        ``seconds``.
    """
    start = time.monotonic()
    work_dir = Path(work_dir)
    options = {CACHE: str(work_dir / 'feature_cache'), **(options or {})}
    summary: dict[str, Any] = {}
    for name, path in (('host', host_config), ('omh', omh_config)):
        config = launch.load_config(path, str(work_dir / name), options=options)
        prepare_neighbours(config, force=True, if_missing=True)
        runner = launch.build_runner(config)
        for hook in runner.hooks:
            if isinstance(hook, HierarchyHook):
                # Its pictures know no counts of all images.
                hook.draws = False
        runner.train()
        summary[name] = _scores(runner)
        summary[f'{name}_refit'] = _refit_scores(runner)
    summary['protocols'] = compare_protocols(runner.model, config, demo_protocols(config), PROTOCOL_OPTIONS)
    loader, granularities = labelled_loader(config)
    check_levels(runner.model, granularities)
    (counted,) = count_levels([[runner.model]], loader, len(granularities[-1].table)).models
    counts = [granularity.merge(table) for granularity, table in zip(granularities, counted.counts)]
    summary['hierarchy'] = compare_with_truth(counted.hierarchy, counted.counts, granularities)
    shown = segment_first(runner.model, loader.dataset, granularities[0])
    summary['pictures'] = [str(path) for path in _draw(work_dir, counted.hierarchy, counts, shown, granularities)]
    summary['page'] = write_demo_page(work_dir, loader.dataset)
    summary['seed'] = config.randomness.seed
    summary['seconds'] = round(time.monotonic() - start, 1)
    write_text(work_dir / 'summary.json', f'{json.dumps(summary, indent=2)}\n')
    return summary


def write_demo_page(work_dir: Path, dataset: Any) -> str:
    """Write the page of the second model's hierarchy; its path."""
    images = [dataset.get_data_info(index)['img_path'] for index in range(len(dataset))]
    inferencer = SegmentationInferencer(work_dir / 'omh')
    write_report(inferencer, images, work_dir / 'report', options=ReportOptions(PAGE_IMAGES))
    return str(work_dir / 'report' / 'index.html')


def demo_protocols(config: Config) -> list[str]:
    """The protocols of the literature at the size of the scenes."""
    (side,) = (step['size'] for step in config.test_pipeline if step['type'] == 'ResizeShortSide')
    names = ('stego', 'stego', 'stego', 'hp', 'smooseg', 'stego')
    options = ('-no-crf-no-flip', '-no-crf', '-no-flip', '', '', '')
    return ['mmseg', *(f'{name}-{side}{option}' for name, option in zip(names, options))]


def check_levels(model: UnsupervisedSegmentor, granularities: Sequence[Granularity]) -> None:
    """Raise ValueError if a model has no OMH head with one level per granularity of the labels."""
    if model.omh_head is None or len(model.omh_head.level_sizes) != len(granularities):
        names = ', '.join(granularity.name for granularity in granularities)
        raise ValueError(f'The demo needs model.omh_head with {len(granularities)} levels, one for each of {names}')


def compare_with_truth(
    hierarchy: Hierarchy, counts: Sequence[np.ndarray], granularities: Sequence[Granularity]
) -> dict[str, Any]:
    """Agreement of the learned parents with the scenes' tree.

    Args:
        hierarchy: Learned, of as many levels as there are granularities.
        counts: Per level the pixels of each cluster and finest label, (K_l, finest labels).
        granularities: Of the labels, coarsest first.

    Returns:
        ``parent_agreement`` and ``chance`` of all pairs of levels together, and ``pairs``, the same of each.
    """
    agreements = pair_agreements(counts, [level.numpy() for level in hierarchy.parents], granularities)
    used = [pair.used.sum() for pair in agreements]
    return dict(
        parent_agreement=pooled_agreement(agreements),
        chance=float(np.average([pair.chance for pair in agreements], weights=used)),
        pairs=[
            dict(levels=[level, level + 1], parent_agreement=pair.agreement, chance=pair.chance)
            for level, pair in enumerate(agreements, start=1)
        ],
    )


@torch.no_grad()
def segment_first(model: UnsupervisedSegmentor, dataset: Any, coarsest: Granularity) -> list[dict[str, np.ndarray]]:
    """Of the first images: picture, true classes of the coarsest granularity, maps of the probe and the levels."""
    model.eval()
    batch = pseudo_collate([dataset[index] for index in range(min(SHOWN_IMAGES, len(dataset)))])
    shown = []
    for image, sample in zip(batch['inputs'], model.test_step(batch)):
        maps = {field: sample.get(field).data[0].cpu().numpy() for field in sample.keys() if field.startswith('pred_')}
        truth = coarsest.table[sample.gt_sem_seg.data[0].cpu().numpy()]
        shown.append(dict(maps, image=image.permute(1, 2, 0).numpy()[..., ::-1], truth=truth))
    return shown


def report(summary: dict[str, Any]) -> str:
    """The summary as text for a terminal."""
    lines = ['', f'{"scores on the demo scenes (percent)":38}{"mIoU":>8}{"accuracy":>10}']
    for title, run, head in (
        ('host, cluster probe', 'host', 'probe'),
        ('host + OMH, cluster probe', 'omh', 'probe'),
        ('host + OMH, level 1', 'omh', 'level1'),
        ('host, cluster probe, refitted', 'host_refit', 'probe'),
        ('host + OMH, cluster probe, refitted', 'omh_refit', 'probe'),
        ('host + OMH, level 1, refitted', 'omh_refit', 'level1'),
        ('host, linear probe (uses labels)', 'host', 'linear'),
        ('host + OMH, linear probe (uses labels)', 'omh', 'linear'),
    ):
        scores = summary[run][head]
        lines.append(f'{title:38}{scores["mIoU"]:8.1f}{scores["aAcc"]:10.1f}')
    agreement, chance = (summary['hierarchy'][key] for key in ('parent_agreement', 'chance'))
    lines += ['', f'plan parents that agree with the true hierarchy: {agreement:.0%} (by chance {chance:.0%})']
    lines += [f'picture: {path}' for path in summary['pictures']]
    lines.append(f'page to walk through the hierarchy: {summary["page"]}')
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


def _refit_scores(runner: Runner) -> dict[str, dict[str, float]]:
    """Scores of the clusterings after a closing refit, by head."""
    scores = score_refit(runner)
    heads = (name.removeprefix(REFIT).partition('/')[0] for name in scores if name.startswith(REFIT))
    return {
        head: {kind: round(scores[f'{REFIT}{head}/{kind}'], 3) for kind in ('mIoU', 'aAcc')}
        for head in dict.fromkeys(heads)
        if f'{REFIT}{head}/mIoU' in scores and head != 'linear'
    }


def _draw(
    work_dir: Path, hierarchy: Hierarchy, counts: Sequence[np.ndarray], shown: Sequence[dict[str, np.ndarray]],
    granularities: Sequence[Granularity],
) -> list[Path]:  # fmt: skip
    colours = np.asarray(HIERARCHY.palettes['group'])
    assigned = [naming_classes(level) for level in counts]
    palettes = cluster_palettes(hierarchy, colours, assigned[0])
    probes = [item['pred_sem_seg'] for item in shown]
    truths = [item['truth'] for item in shown]
    probe_counts = sum(confusion_matrix(probe, truth, *counts[0].shape) for probe, truth in zip(probes, truths))
    levels = [[item[f'pred_level{level}'] for item in shown] for level in range(1, len(palettes) + 1)]
    sizes = hierarchy.level_sizes
    grid, plans, tree = (work_dir / name for name in PICTURES)
    draw_segmentation_grid(
        grid,
        [item['image'] for item in shown],
        [probes, *levels],
        [match_colours(colours, naming_classes(np.asarray(probe_counts))), *palettes],
        truth=truths,
        truth_palette=colours,
        classes=granularities[0].classes,
        titles=['image', 'truth', 'cluster probe', *(f'OMH level {i}\n{k} clusters' for i, k in enumerate(sizes, 1))],
    )
    draw_plan_matrices(plans, hierarchy, palettes)
    names = [
        cluster_names(classes, granularity.classes, len(classes))
        for granularity, classes in zip(granularities, assigned)
    ]
    draw_hierarchy_tree(tree, hierarchy, palettes, [level.sum(1) for level in counts], names)
    return [grid, plans, tree]
