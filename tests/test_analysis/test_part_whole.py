"""Parts and wholes: rows of clusters, rows of classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from omh_mmseg.analysis.part_whole import class_rows, class_summary, cluster_rows
from omh_mmseg.transport import Hierarchy

CLASSES = ('sky', 'tree', 'road')
COUNTS = [np.array([[60, 0, 0], [0, 30, 10]]), np.array([[50, 0, 0], [0, 30, 0], [10, 0, 10], [0, 0, 0]])]


@pytest.fixture
def hierarchy() -> Hierarchy:
    plan = torch.tensor([[0.25, 0.0, 0.05, 0.2], [0.0, 0.25, 0.2, 0.05]], dtype=torch.float64)
    return Hierarchy([2, 4], [plan])


def test_rows_of_clusters(hierarchy):
    rows = {(row['level'], row['cluster']): row for row in cluster_rows(hierarchy, COUNTS, CLASSES)}
    assert len(rows) == 6
    mixed = rows[2, 2]
    assert (mixed['class'], mixed['purity'], mixed['second'], mixed['second_share']) == ('sky', 0.5, 'road', 0.5)
    assert (mixed['parent'], mixed['parent_class']) == (1, 'tree') and mixed['parent_mass'] == pytest.approx(0.8)
    assert mixed['chain'] == '2 sky < 1 tree'
    assert mixed['share'] == pytest.approx(0.2) and mixed['pixels'] == 20
    unused = rows[2, 3]
    assert unused['class'] is None and np.isnan(unused['purity']) and unused['chain'] == '3 (unused) < 0 sky'
    root = rows[1, 0]
    assert root['parent'] is None and root['second'] is None and root['chain'] == '0 sky'


def test_counts_must_fit(hierarchy):
    with pytest.raises(ValueError, match=r'shapes \[\(4, 3\)\] do not fit levels and classes \[\(2, 3\), \(4, 3\)\]'):
        cluster_rows(hierarchy, COUNTS[1:], CLASSES)


def test_rows_of_classes():
    rows = class_rows(COUNTS[1], CLASSES, least=0.2)
    assert [(row['class'], row['cluster'], row['majority']) for row in rows] == [
        ('sky', 0, True), ('tree', 1, True), ('road', 2, False)
    ]  # fmt: skip
    assert rows[0]['share_of_class'] == pytest.approx(5 / 6) and rows[2]['purity'] == 0.5
    assert len(class_rows(COUNTS[1], CLASSES, least=0.1)) == 4


def test_summary_of_classes():
    sky, tree, road = class_summary(COUNTS[1], CLASSES)
    assert (sky['clusters'], sky['covered'], sky['purity']) == (2, 1.0, pytest.approx(60 / 70))
    assert sky['largest parts'] == '0* 83%, 2* 17%'
    assert (road['clusters'], road['covered']) == (0, 0.0) and np.isnan(road['purity'])
    assert tree['largest parts'] == '1* 100%'
