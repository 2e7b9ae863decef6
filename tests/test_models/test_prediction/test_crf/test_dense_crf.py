from __future__ import annotations

import importlib.util
import logging

import pytest
import torch
from torch import Tensor

from omh_mmseg.models.prediction.crf import DenseCRF, dense_crf, mean_field

HAS_EXTRA = importlib.util.find_spec('pydensecrf') is not None
needs_extra = pytest.mark.skipif(not HAS_EXTRA, reason='the extra is absent: pip install omh-mmseg[crf]')
BACKENDS = ['torch', pytest.param('pydensecrf', marks=needs_extra)]


def refined(crf: DenseCRF, image: Tensor, log_probabilities: Tensor) -> Tensor:
    (result,) = crf.refine([(image, dict(only=log_probabilities))])
    return result['only']


@pytest.mark.parametrize('backend', BACKENDS)
def test_numbers_of_the_reference(a9, backend):
    """docs/methods/test_vectors.md A.9."""
    image, log_probabilities = a9
    before = torch.bincount(log_probabilities.argmax(0).flatten()).tolist()
    assert before == [508, 599, 648, 657, 660]
    marginals = refined(DenseCRF(backend=backend, workers=1), image, log_probabilities)
    after = torch.bincount(marginals.argmax(0).flatten()).tolist()
    assert sum(abs(ours - theirs) for ours, theirs in zip(after, [389, 662, 666, 676, 679])) <= 4
    torch.testing.assert_close(
        marginals[:, 24, 32], torch.tensor([0.00026, 0.99822, 0.00023, 0.00033, 0.00096]), atol=2e-5, rtol=0
    )
    torch.testing.assert_close(
        marginals[:, 5, 7], torch.tensor([0.00036, 0.99695, 0.00138, 0.00118, 0.00013]), atol=2e-5, rtol=0
    )


@needs_extra
def test_back_ends_agree_on_photographs(photos):
    """At least 99 % equal arg-max is asked for; both filter on the same lattice."""
    ours = list(DenseCRF(backend='torch').refine((image, dict(p=maps)) for image, maps in photos))
    theirs = list(DenseCRF(backend='pydensecrf', workers=2).refine((image, dict(p=maps)) for image, maps in photos))
    for (_, maps), one, other in zip(photos, ours, theirs):
        assert (one['p'].argmax(0) == other['p'].argmax(0)).float().mean() > 0.999
        assert (one['p'].argmax(0) != maps.argmax(0)).float().mean() > 0.01
        torch.testing.assert_close(one['p'], other['p'], atol=1e-3, rtol=0)


def exact_mean_field(image: Tensor, log_probabilities: Tensor, iterations: int) -> Tensor:
    """Every pair of pixels, written out."""
    clusters, height, width = log_probabilities.shape
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing='ij')
    place = torch.stack([columns, rows], -1).reshape(-1, 2).double()
    colour = image.permute(1, 2, 0).reshape(-1, 3).double()
    kernels = []
    for distance, weight in (
        (torch.cdist(place, place) ** 2, 3.0),
        (torch.cdist(place / 67, place / 67) ** 2 + torch.cdist(colour / 3, colour / 3) ** 2, 4.0),
    ):
        kernel = (-distance / 2).exp()
        norm = kernel.sum(1).rsqrt()
        kernels.append(weight * norm[:, None] * kernel * norm)
    probabilities = torch.softmax(log_probabilities.double(), 0).reshape(clusters, -1)
    unary = -probabilities.clamp_min(1e-5).log()
    marginals = torch.softmax(-unary, 0)
    for _ in range(iterations):
        marginals = torch.softmax(-unary + sum(marginals @ kernel for kernel in kernels), 0)
    return marginals.reshape(clusters, height, width)


def test_lattice_approximates_every_pair(a9):
    image, log_probabilities = (item[:, :32, :32].contiguous() for item in a9)
    approximate = refined(DenseCRF(iterations=5), image, log_probabilities)
    exact = exact_mean_field(image, log_probabilities, 5)
    assert (log_probabilities.argmax(0) == exact.argmax(0)).float().mean() < 0.85
    assert (approximate.argmax(0) == exact.argmax(0)).float().mean() > 0.92


def test_marginals_sum_to_one_and_inputs_stay(a9):
    image, log_probabilities = a9
    before = image.clone(), log_probabilities.clone()
    marginals = refined(DenseCRF(iterations=2), image, log_probabilities)
    torch.testing.assert_close(marginals.sum(0), torch.ones(48, 64))
    assert torch.equal(image, before[0]) and torch.equal(log_probabilities, before[1])
    torch.testing.assert_close(refined(DenseCRF(iterations=2), image, log_probabilities + 5), marginals)


def test_constants_are_those_of_the_paper_and_all_count(a9):
    image, log_probabilities = a9
    crf = DenseCRF()
    assert crf.settings == dict(
        iterations=10, gaussian_sxy=1, gaussian_compat=3, bilateral_sxy=67, bilateral_srgb=3, bilateral_compat=4,
        min_probability=1e-5,
    )  # fmt: skip
    reference = refined(crf, image, log_probabilities)
    changed = dict(
        iterations=3, gaussian_sxy=3.0, gaussian_compat=0.0, bilateral_sxy=5.0, bilateral_srgb=40.0,
        bilateral_compat=0.0, min_probability=0.3,
    )  # fmt: skip
    for name, value in changed.items():
        assert (refined(DenseCRF(**{name: value}), image, log_probabilities) - reference).abs().max() > 1e-3, name


@pytest.mark.parametrize('backend', BACKENDS)
def test_many_images_and_segmentations_keep_their_order(a9, backend):
    image, maps = a9
    crf = DenseCRF(iterations=2, backend=backend, workers=2)
    jobs = [(image[:, :, :20], dict(a=maps[:, :, :20], b=maps[:3, :, :20])), (image, dict(a=maps)),
            (image[:, :30], dict(a=maps[:, :30]))]  # fmt: skip
    results = list(crf.refine(iter(jobs)))
    assert [list(one) for one in results] == [['a', 'b'], ['a'], ['a']]
    for (picture, segmentations), result in zip(jobs, results):
        for name, log_probabilities in segmentations.items():
            alone = refined(DenseCRF(iterations=2, backend='torch'), picture, log_probabilities)
            torch.testing.assert_close(result[name], alone, atol=1e-4, rtol=0)


def test_jobs_are_made_when_needed(a9):
    made = []

    def jobs():
        for number in range(3):
            made.append(number)
            yield a9[0], dict(p=a9[1])

    results = DenseCRF(iterations=1, backend='torch').refine(jobs())
    next(results)
    assert made == [0]


def test_channels_are_filtered_in_as_many_parts_as_the_memory_wants(a9, monkeypatch):
    image, maps = a9
    job = (image, dict(a=maps, b=maps.flip(0)[:3], c=maps[:2]))
    (whole,) = DenseCRF(iterations=2, backend='torch').refine([job])
    filtered = []
    lattice = mean_field.PermutohedralLattice
    call = lattice.__call__
    monkeypatch.setattr(lattice, '__call__', lambda self, values: filtered.append(values) or call(self, values))
    monkeypatch.setattr(mean_field, 'TABLE_BYTES', 0)
    monkeypatch.setattr(mean_field, 'FEWEST_CHANNELS', 3)
    monkeypatch.setattr(mean_field, 'ROWS', 100)
    (parts,) = DenseCRF(iterations=2, backend='torch').refine([job])
    assert {values.shape[1] for values in filtered} == {1, 2, 3}
    for name, marginals in whole.items():
        torch.testing.assert_close(parts[name], marginals)


@pytest.mark.parametrize('spread', [1.0, 30.0, 1000.0])
def test_softmax_of_each_segmentation(spread, monkeypatch):
    torch.manual_seed(0)
    energy, sizes = spread * torch.randn(50, 9), [2, 3, 4]
    energy[7] += 20
    monkeypatch.setattr(mean_field, 'ROWS', 8)
    found = torch.empty_like(energy)
    mean_field._Softmax(sizes, energy)(energy, found)
    expected = torch.cat([torch.softmax(part, 1) for part in energy.split(sizes, 1)], 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-30)


def test_the_extra_is_used_where_it_is_installed(a9, monkeypatch):
    used = []
    for name in ('_by_workers', '_by_torch'):
        monkeypatch.setattr(DenseCRF, name, lambda self, jobs, *_, name=name: used.append(name) or iter(()))
    monkeypatch.setattr(dense_crf, '_import_problem', lambda: None)
    job = (a9[0], dict(p=a9[1]))
    list(DenseCRF().refine([job]))
    list(DenseCRF(backend='torch').refine([job]))
    list(DenseCRF().refine([(a9[0], dict(p=a9[1].to('meta')))]))
    list(DenseCRF(backend='pydensecrf').refine([(a9[0], dict(p=a9[1].to('meta')))]))
    monkeypatch.setattr(dense_crf, '_import_problem', lambda: 'No module named pydensecrf')
    list(DenseCRF().refine([job]))
    assert used == ['_by_workers', '_by_torch', '_by_torch', '_by_workers', '_by_torch']


def test_progress_is_logged(a9, monkeypatch, caplog):
    monkeypatch.setattr(dense_crf, 'REPORT_SECONDS', 0.0)
    logger = dense_crf.MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO):
            list(DenseCRF(iterations=1).refine([(a9[0], dict(p=a9[1]))] * 2))
    finally:
        logger.removeHandler(caplog.handler)
    assert 'dense CRF: 2 images so far' in caplog.text


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(backend='cuda'), r"backend must be one of \('auto', 'torch', 'pydensecrf'\); got 'cuda'"),
        (dict(iterations=0), r'iterations must be a whole number in \[1, 1000\]; got 0'),
        (dict(bilateral_srgb=0.0), 'bilateral_srgb must be'),
        (dict(min_probability=1.0), r'min_probability must be a number in \(0, 1\)'),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        DenseCRF(**options)


def test_an_extra_that_does_not_import_is_warned_of(monkeypatch, caplog):
    def fails(name: str) -> None:
        raise ImportError('numpy.core.multiarray failed to import')

    monkeypatch.setattr(dense_crf.importlib, 'import_module', fails)
    dense_crf._import_problem.cache_clear()
    logger = dense_crf.MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    try:
        assert DenseCRF()._pool is DenseCRF()._pool is None
    finally:
        logger.removeHandler(caplog.handler)
        dense_crf._import_problem.cache_clear()
    assert caplog.text.count('pydensecrf is installed and cannot be imported: numpy.core') == 1


def test_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(dense_crf, '_import_problem', lambda: 'No module named pydensecrf')
    with pytest.raises(ImportError, match=r"pip install omh-mmseg\[crf\] .*backend='torch'"):
        DenseCRF(backend='pydensecrf')


def test_sizes_that_differ(a9):
    with pytest.raises(ValueError, match=r'image is \(40, 64\) and the log-probabilities are \(48, 64\)'):
        refined(DenseCRF(), a9[0][:, :40], a9[1])


def test_images_that_are_not_bytes(a9):
    with pytest.raises(ValueError, match='uint8 images'):
        refined(DenseCRF(), a9[0].float(), a9[1])
