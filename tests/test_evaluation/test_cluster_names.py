from __future__ import annotations

import numpy as np

from omh_mmseg.evaluation.cluster_names import cluster_names, naming_classes


def test_one_to_one_where_there_are_no_more_clusters_than_classes():
    counts = np.array([[9, 8, 0], [10, 1, 0], [0, 0, 0]])
    # Most of both are of class 0; the matching that scores them names the first after class 1.
    assert naming_classes(counts).tolist() == [1, 0, -1]
    assert naming_classes(counts[:2]).tolist() == [1, 0]


def test_most_of_the_pixels_where_there_are_more():
    assert naming_classes(np.array([[9, 8], [10, 1], [0, 3], [0, 0]])).tolist() == [0, 0, 1, -1]


def test_names():
    assert cluster_names([1, 0, -1], ('ground', 'plant'), 3) == ['plant', 'ground', None]
    assert cluster_names(None, ('ground', 'plant'), 2) == [None, None]
    assert cluster_names([1, 0], (), 2) == [None, None]
