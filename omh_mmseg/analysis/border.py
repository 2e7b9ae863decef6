"""Which clusters of trained models live on the border of the image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from rich.progress import track
from torch.utils.data import DataLoader

from omh_mmseg.analysis.level_counts import labelled_loader, load_levels, run_names
from omh_mmseg.evaluation.border import SIDES, BorderCounts, border_sentence
from omh_mmseg.evaluation.heads import head_of
from omh_mmseg.models.segmentors import UnsupervisedSegmentor
from omh_mmseg.utils.files import write_text
from omh_mmseg.utils.tables import PathLike, list_files, markdown_table, write_csv


@torch.no_grad()
def count_border(model: UnsupervisedSegmentor, loader: DataLoader) -> BorderCounts:
    """Count the predictions of all clusterings of a model.

    Args:
        model: See `load_levels`.
        loader: Single images or batches, of `labelled_loader`; labels are not used.
    """
    counts = BorderCounts(model.assignment.sizes, model.backbone.stride)
    for batch in track(loader, 'segmenting at every level'):
        data = model.data_preprocessor(batch, False)
        counts.add(model.predict(data['inputs'], data['data_samples']))
    return counts


def border_rows(counts: BorderCounts) -> list[dict[str, Any]]:
    """Shares of the lines near each side, by clustering and cluster.

    Returns:
        Rows with ``clustering``, ``cluster``, ``side``, ``all`` (share of all positions that are in the cluster) and
        ``line_1``, ``line_2``, ..., those of the positions of each line, from the border inwards.
    """
    rows = []
    for field, totals in counts.totals.items():
        shares = counts.shares(field)
        for cluster, total in enumerate(totals):
            for side, lines in zip(SIDES, shares[:, :, cluster]):
                row = dict(clustering=head_of(field), cluster=cluster, side=side, all=total / max(totals.sum(), 1))
                rows.append(row | {f'line_{number}': share for number, share in enumerate(lines, start=1)})
    return rows


def analyse_border(
    config: Config,
    checkpoints: Sequence[str],
    out: PathLike,
    split: str = 'val',
    images: int | None = None,
    device: str | None = None,
) -> str:
    """Clusters of the border, by the predictions of checkpoints.

    Args:
        config: Of the models and their data; labels are not needed.
        checkpoints: Of one or several runs.
        out: Folder of ``border.csv`` (the shares of all lines, see `border_rows`) and ``border.md``.
        split: Images to predict.
        images: Only the first so many.
        device: See `load_levels`.

    Returns:
        A sentence and a table of the clusters that end near a side, for each checkpoint.
    """
    loader, _ = labelled_loader(config, split, images)
    rows: list[dict[str, Any]] = []
    texts = []
    for name, checkpoint in zip(run_names(checkpoints), checkpoints):
        counts = count_border(load_levels(config, checkpoint, device), loader)
        rows += [dict(run=name) | row for row in border_rows(counts)]
        texts.append(f'{name}: {border_sentence(counts)}')
        ends = [
            dict(clustering=head_of(field), cluster=one.cluster, side=one.side, line=one.line, share=one.share)
            | {'share of the next': one.inside, 'of the cluster on the border': one.on_border}
            for field in counts.sizes
            for one in counts.found(field)
        ]
        if ends:
            texts.append(markdown_table(ends, 2))
    text, out = '\n\n'.join(texts), Path(out)
    paths = [write_csv(out / 'border.csv', rows), write_text(out / 'border.md', f'{text}\n')]
    return f'{text}\n\n{list_files(paths)}'
