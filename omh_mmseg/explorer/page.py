"""The page itself: data, style and script in one file."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from omh_mmseg.transport import Hierarchy
from omh_mmseg.visualization.layout import cluster_order, parent_shares

ASSETS = Path(__file__).resolve().parents[1] / 'assets' / 'explorer'
HINT = (
    'Choose a cluster in the tree, the table or an image: it stays lit in all of them, also while the level changes. '
    'Its size, margin, parent, parts and best examples take this place. Below: the best example of each.'
)
FIGURES = (
    dict(name='in_use', title='clusters in use', text='with at least one pixel', digits=0, unit=''),
    dict(name='effective', title='effective clusters', text='exponential of the entropy of their sizes', digits=1,
         unit=''),
    dict(name='margin', title='mean margin', text='cosine of the best cluster, with the bias of a refit where there is '
         'one, minus that of the second', digits=3, unit=''),
    dict(name='mirror', title='same when mirrored', text='positions that keep their cluster', digits=1, unit=' %'),
    dict(name='crop', title='same when cropped', text='positions that keep their cluster in the middle of the image '
         'alone', digits=1, unit=' %'),
    dict(name='boundary', title='boundaries on edges', text='chance that a boundary has the stronger image gradient; '
         'random: 50 %', digits=1, unit=' %'),
)  # fmt: skip


def write_page(data: dict[str, Any]) -> str:
    """The page as HTML that loads nothing but the pictures beside it.

    Args:
        data: What ``assets/explorer/script.js`` reads.
    """
    parts = {name: (ASSETS / name).read_text(encoding='utf-8') for name in ('page.html', 'style.css', 'script.js')}
    # In a script element only '<' could end it or begin a comment.
    text = json.dumps(data, separators=(',', ':'), allow_nan=False).replace('<', '\\u003c')
    page = parts['page.html']
    for mark, content in (
        ('<!--TITLE-->', html.escape(data['title'])), ('/*STYLE*/', parts['style.css']),
        ('/*SCRIPT*/', parts['script.js']), ('/*DATA*/', text),
    ):  # fmt: skip
        before, after = page.split(mark)
        page = f'{before}{content}{after}'
    return page


def describe_tree(hierarchy: Hierarchy, entropy_weight: float) -> dict[str, Any]:
    """Order, parents and plans of a hierarchy, as the page reads them.

    Args:
        hierarchy: Of the levels.
        entropy_weight: Lambda of its plans.

    Returns:
        ``order`` of the clusters of each level; per level pair ``plans`` with ``shares`` (K_{l+1}, K_l) of each finer
        cluster's mass, its ``mass``, ``parent_takes`` (a mean share), ``parents_mean``, the effective number of
        parents, and ``entropy_weight``; ``parents`` and ``parent_shares`` of each level, None of the first.
    """
    plans = []
    for plan, shares in zip(hierarchy.plans, parent_shares(hierarchy)):
        effective = torch.special.entr(torch.from_numpy(shares)).sum(1).exp()
        plans.append(
            dict(
                shares=np.round(shares, 4).tolist(),
                mass=np.round(plan.sum(0).numpy(), 7).tolist(),
                parent_takes=round(float(shares.max(1).mean()), 5),
                parents_mean=round(float(effective.mean()), 4),
                entropy_weight=entropy_weight,
            )
        )
    return dict(
        order=[order.tolist() for order in cluster_order(hierarchy)],
        plans=plans,
        parents=[None, *(parents.tolist() for parents in hierarchy.parents)],
        parent_shares=[None, *(np.round(mass.numpy(), 5).tolist() for mass in hierarchy.parent_mass)],
    )
