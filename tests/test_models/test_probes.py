from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from omh_mmseg.models.decode_heads import ClusterProbe, LinearProbe
from omh_mmseg.models.prediction.options import PredictionOptions
from omh_mmseg.models.utils.similarity import centre_scores
from omh_mmseg.registry import MODELS


def probe_with(centres: torch.Tensor, alpha: float | None = None) -> ClusterProbe:
    probe = ClusterProbe(centres.shape[1], centres.shape[0], alpha)
    with torch.no_grad():
        probe.centres.copy_(centres)
    return probe


@pytest.mark.golden
@pytest.mark.parametrize('alpha', [None, 2.0, 10.0])
def test_cluster_lookup_equals_the_reference(golden, alpha):
    arrays = golden('cluster_lookup')
    code = torch.tensor(arrays['x'], requires_grad=True)
    probe = probe_with(torch.tensor(arrays['clusters']), alpha)
    similarity = probe(code)
    if alpha is None:
        probabilities = F.one_hot(similarity.argmax(1), probe.num_classes).movedim(-1, 1).float()
    else:
        probabilities = torch.softmax(alpha * similarity, 1)
    loss = probe.cluster_loss(similarity)
    loss.backward()
    computed = dict(loss=loss, probs=probabilities, grad_x=code.grad, grad_clusters=probe.centres.grad)
    for name, value in computed.items():
        expected = torch.tensor(arrays[f'alpha={alpha}/{name}']).reshape(value.shape)
        torch.testing.assert_close(
            value.detach(), expected, rtol=1e-5, atol=1e-6, msg=lambda text, name=name: f'{name}: {text}'
        )


@pytest.mark.golden
def test_log_probabilities_equal_the_reference(golden):
    arrays = golden('cluster_lookup')
    cosines = probe_with(torch.tensor(arrays['clusters']))(torch.tensor(arrays['x']))
    computed = torch.log_softmax(PredictionOptions().alpha * cosines, dim=1)
    torch.testing.assert_close(computed, torch.tensor(arrays['logprobs_alpha=2']), rtol=1e-5, atol=1e-6)


def test_cluster_probe_equals_the_vectors(waves):
    """docs/methods/test_vectors.md A.3."""
    code, centres = waves((4, 6, 28, 28), 0.61, 0.2), waves((5, 6), 0.9, 0.7)
    probe = probe_with(centres)
    loss = probe.loss(code)['loss_cluster_probe']
    loss.backward()
    assert loss.item() == pytest.approx(-0.5332255, abs=1e-6)
    assert probe(code).argmax(1).flatten().bincount().tolist() == [651, 656, 523, 539, 767]
    assert probe.centres.grad.norm().item() == pytest.approx(0.0385103, abs=1e-6)
    assert probe_with(centres, 2.0).loss(code)['loss_cluster_probe'].item() == pytest.approx(-0.2817611, abs=1e-6)
    assert torch.log_softmax(2 * probe(code), dim=1)[0, :, 0, 0].tolist() == pytest.approx(
        [-3.491833, -0.563531, -2.655925, -2.054262, -1.599794], abs=1e-5
    )


def test_linear_probe_equals_the_vector(waves):
    """docs/methods/test_vectors.md A.4."""
    probe = LinearProbe(6, 27)
    with torch.no_grad():
        probe.classifier.weight.copy_(waves((27, 6), 0.41, 0.2)[:, :, None, None])
        probe.classifier.bias.copy_(waves((27,), 1.1, 0.0))
    labels = ((7 * torch.arange(4 * 224 * 224)) % 31 - 2).reshape(4, 224, 224)
    assert int(((labels >= 0) & (labels < 27)).sum()) == 174806
    loss = probe.loss(waves((4, 6, 28, 28), 0.61, 0.2), labels)['loss_linear_probe']
    assert loss.item() == pytest.approx(3.8334172, abs=1e-5)


def test_initial_weights():
    """docs/methods/features.md 2.4: centres i.i.d. standard normal; the classifier as torch makes it (2.1)."""
    cluster, linear = ClusterProbe(100, 90), LinearProbe(100, 90)
    cluster.init_weights(), linear.init_weights()
    centres = cluster.centres.detach()
    assert centres.mean().item() == pytest.approx(0, abs=0.05)
    assert centres.std().item() == pytest.approx(1, abs=0.05)
    assert (centres.abs() < 1).float().mean().item() == pytest.approx(0.6827, abs=0.03)
    weight, bias = 10 * linear.classifier.weight.detach(), 10 * linear.classifier.bias.detach()
    for values in (weight, bias):
        assert 0.9 < values.abs().max() <= 1 and values.std().item() == pytest.approx(3**-0.5, abs=0.1)


def test_the_cluster_loss_needs_no_upsampling_and_the_linear_one_upsamples_logits():
    """docs/methods/stego.md 3A.5: the first is a mean over the code's grid, the second over the pixels of the label."""
    code, cluster, linear = torch.randn(2, 6, 4, 5), ClusterProbe(6, 3), LinearProbe(6, 3)
    labels = torch.randint(0, 3, (2, 13, 18))
    nearest = F.cosine_similarity(code[:, None], cluster.centres[None, :, :, None, None], dim=2).max(1).values
    torch.testing.assert_close(cluster.loss(code)['loss_cluster_probe'], -nearest.mean())
    logits = F.interpolate(linear(code), size=(13, 18), mode='bilinear', align_corners=False)
    torch.testing.assert_close(linear.loss(code, labels)['loss_linear_probe'], F.cross_entropy(logits, labels))


def test_neither_probe_reaches_the_code():
    code = torch.randn(2, 6, 4, 4, requires_grad=True)
    cluster, linear = ClusterProbe(6, 3), LinearProbe(6, 3)
    labels = torch.randint(0, 3, (2, 8, 8))
    (cluster.loss(code)['loss_cluster_probe'] + linear.loss(code, labels)['loss_linear_probe']).backward()
    assert code.grad is None
    assert cluster.centres.grad.norm() > 0
    assert all(parameter.grad.norm() > 0 for parameter in linear.parameters())


@pytest.mark.parametrize('ignored', [255, 3, 200, -1])
def test_labels_outside_the_classes_are_ignored(ignored):
    code, probe = torch.randn(1, 6, 8, 8), LinearProbe(6, 3)
    labels = torch.randint(0, 3, (1, 8, 8))
    labels[0, :4] = ignored
    expected = F.cross_entropy(probe(code)[:, :, 4:], labels[:, 4:])
    torch.testing.assert_close(probe.loss(code, labels)['loss_linear_probe'], expected)


def test_unsigned_labels():
    labels = torch.tensor([[[0, 1], [2, 255]]], dtype=torch.uint8)
    code, probe = torch.randn(1, 6, 2, 2), LinearProbe(6, 3)
    torch.testing.assert_close(probe.loss(code, labels), probe.loss(code, labels.long()))


def test_no_valid_label_costs_nothing_and_stays_finite():
    probe = LinearProbe(6, 3)
    loss = probe.loss(torch.randn(2, 6, 4, 4), torch.full((2, 9, 9), 255))['loss_linear_probe']
    loss.backward()
    assert loss.item() == 0
    assert all((parameter.grad == 0).all() for parameter in probe.parameters())


def test_zero_code_is_finite():
    probe = ClusterProbe(6, 3)
    loss = probe.loss(torch.zeros(1, 6, 4, 4))['loss_cluster_probe']
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(probe.centres.grad).all()


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_cosines_under_autocast_are_those_of_full_precision(dtype):
    code, probe = torch.randn(2, 6, 4, 4), ClusterProbe(6, 3)
    expected = probe(code)
    with torch.autocast('cpu', dtype=dtype):
        computed = probe(code)
    assert computed.dtype == torch.float32
    assert torch.equal(computed, expected)


def test_scores_have_the_argmax_of_the_cosines():
    code, probe = 5 * torch.randn(2, 6, 9, 9), ClusterProbe(6, 7)
    assert torch.equal(centre_scores(code, probe.centres).argmax(1), probe(code).argmax(1))


def test_one_class():
    code, labels = torch.randn(1, 6, 4, 4), torch.zeros(1, 4, 4, dtype=torch.long)
    assert LinearProbe(6, 1).loss(code, labels)['loss_linear_probe'].item() == 0
    assert (ClusterProbe(6, 1)(code).argmax(1) == 0).all()


def test_extra_clusters():
    probe = MODELS.build(dict(type='ClusterProbe', in_channels=3, num_classes=4, extra_clusters=2))
    assert probe.centres.shape == (6, 3) and probe.num_classes == 4
    assert probe(torch.randn(1, 3, 2, 2)).shape == (1, 6, 2, 2)
    assert probe.loss(torch.randn(2, 3, 2, 2))['loss_cluster_probe'].isfinite()


# ---- whether the linear probe ever saw a label


def taught(*labels: int) -> LinearProbe:
    probe = LinearProbe(4, 3).train()
    for label in labels:
        probe.loss(torch.randn(1, 4, 2, 2), torch.full((1, 8, 8), label))
    return probe


@pytest.mark.parametrize(
    ('labels', 'unlabelled'), [((), False), ((255,), True), ((255, 3, -1), True), ((255, 2), False), ((2, 255), False)]
)
def test_probe_knows_whether_it_saw_a_label(labels, unlabelled):
    probe = taught(*labels)
    assert probe.unlabelled is unlabelled
    state = probe.state_dict()
    assert set(state) == {'classifier.weight', 'classifier.bias'} | ({'unlabelled'} if unlabelled else set())
    other = LinearProbe(4, 3)
    assert other.load_state_dict(state) and other.unlabelled is unlabelled
    # A resumed run goes on with it: the first label counts.
    other.train().loss(torch.randn(1, 4, 2, 2), torch.full((1, 8, 8), 1))
    assert not other.unlabelled


def test_evaluation_is_no_training():
    probe = LinearProbe(4, 3).eval()
    probe.loss(torch.randn(1, 4, 2, 2), torch.full((1, 8, 8), 255))
    assert not probe.unlabelled


def test_weights_of_labelled_runs_stay_so_in_unlabelled_ones():
    probe = LinearProbe(4, 3)
    probe.load_state_dict(taught(1).state_dict())
    probe.train().loss(torch.randn(1, 4, 2, 2), torch.full((1, 8, 8), 255))
    assert not probe.unlabelled
