from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import OptimWrapper
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from omh_mmseg.registry import MODELS

HOST_LOSSES = ['loss_within', 'loss_across']
OMH = dict(type='OMHHead', centres=dict(start='random'), reach=dict(type='FixedWeight', begin=0))


@pytest.fixture
def tiny_smooseg(tiny_vit) -> Callable[..., nn.Module]:
    """``tiny_smooseg(omh_head=None, ...)``: SmooSeg with 4 classes on the tiny ViT; keywords replace parts."""
    config = dict(
        type='SmooSeg',
        num_classes=4,
        data_preprocessor=dict(
            type='ViewsDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
        ),
        backbone=dict(type='FrozenBackbone', backbone=tiny_vit),
        decode_head=dict(type='ProjectionHead', channels=10, act_cfg=dict(type='SiLU'), dropout_ratio=0.2),
        cluster_probe=dict(type='PrototypeHead'),
        smoothness_loss=dict(type='SmoothnessEnergyLoss', within_shift=-0.02, across_shift=0.5),
        omh_head=OMH,
    )

    def build(**parts) -> nn.Module:
        model = MODELS.build(copy.deepcopy(config | parts))
        model.init_weights()
        return model

    return build


def images(count: int = 3, size: int = 32) -> Tensor:
    return torch.randn(count, 3, size, size)


def samples(count: int = 3, labels: bool = True) -> list[SegDataSample]:
    items = [SegDataSample() for _ in range(count)]
    for item in items if labels else []:
        item.gt_sem_seg = PixelData(data=torch.randint(0, 4, (1, 32, 32)))
    return items


def total_of(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([value for name, value in losses.items() if 'loss' in name]).sum()


def adam(model: nn.Module, rate: float = 0.01) -> OptimWrapper:
    return OptimWrapper(torch.optim.Adam((p for p in model.parameters() if p.requires_grad), rate))


def raw_batch(count: int = 2, labels: bool = True) -> dict:
    views = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for _ in range(count)]
    return dict(inputs=views, data_samples=samples(count, labels))


# ---- training


def test_losses_of_host_and_omh(tiny_smooseg):
    losses = tiny_smooseg().loss(images(), samples())
    named = [name for name in losses if 'loss' in name]
    assert named == [*HOST_LOSSES, 'loss_data', 'loss_omh_centre', 'loss_omh_match']
    assert all(torch.isfinite(value) for value in losses.values())
    figures = set(losses) - set(named)
    assert {'omh_used_1', 'omh_violation_23', 'code_gradient_host', 'code_gradient_omh_match'} <= figures
    assert not any(losses[name].requires_grad for name in figures)


def test_host_alone(tiny_smooseg):
    assert list(tiny_smooseg(omh_head=None).loss(images(), samples())) == [*HOST_LOSSES, 'loss_data']


def test_no_label_reaches_the_training(tiny_smooseg):
    inputs, gradients = images(), []
    for items in (samples(), samples(labels=False)):
        torch.manual_seed(1)
        model = tiny_smooseg()
        total_of(model.loss(inputs, items)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_a_linear_probe_changes_nothing_of_the_host(tiny_smooseg):
    inputs, items, results = images(), samples(), []
    for probe in (None, dict(type='LinearProbe')):
        torch.manual_seed(1)
        model = tiny_smooseg(omh_head=None)
        if probe is not None:
            model.linear_probe = MODELS.build(dict(probe, in_channels=10, num_classes=4))
        torch.manual_seed(2)
        losses = model.loss(inputs, items)
        total_of(losses).backward()
        results.append([losses[name] for name in [*HOST_LOSSES, 'loss_data']])
        results[-1].append(model.decode_head.linear.weight.grad)
        assert ('loss_linear_probe' in losses) == (probe is not None)
    assert all(torch.equal(plain, probed) for plain, probed in zip(*results))


def test_gradients(tiny_smooseg):
    model = tiny_smooseg()
    model.train()
    # At the start student and teacher coincide.
    model.cluster_probe.centres.copy_(torch.randn(4, 10))
    total_of(model.loss(images(), samples())).backward()
    for name, parameter in model.named_parameters():
        if name.startswith('backbone.'):
            assert parameter.grad is None, name
        else:
            assert parameter.grad.norm() > 0, name
    assert model.cluster_probe.centres.grad is None


@pytest.mark.parametrize(
    ('names', 'moved'), [(HOST_LOSSES, 'decode_head.'), (['loss_data'], 'cluster_probe.')], ids=['energy', 'data']
)
def test_each_term_moves_its_part(tiny_smooseg, names, moved):
    """docs/methods/smooseg.md 3C.2: the energy moves the head alone, the data term the student alone."""
    model = tiny_smooseg(omh_head=None)
    losses = model.loss(images(), samples())
    sum(losses[name] for name in names).backward()
    touched = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.norm() > 0}
    assert touched == {name for name, _ in model.named_parameters() if name.startswith(moved)}


def test_closeness_comes_from_features_with_a_mask_of_their_own(tiny_smooseg):
    """docs/methods/features.md 2.2."""
    model, inputs, seen, masks = tiny_smooseg(), images(), [], []
    model.decode_head.dropout.p = 0.5
    model.decode_head.linear.register_forward_pre_hook(lambda _, args: masks.append(args[0] == 0))
    model.smoothness_loss.register_forward_pre_hook(lambda _, args: seen.extend(args))
    model.loss(inputs, samples())
    clean, (features, assignments) = model.extract_feat(inputs), seen
    dropped = (features == 0).flatten(2).all(2)
    assert 0.2 < dropped.float().mean() < 0.8
    torch.testing.assert_close(features, torch.where(dropped[:, :, None, None], 0.0, 2 * clean))
    assert not torch.equal(features == 0, masks[0])
    torch.testing.assert_close(assignments.sum(1), torch.ones(3, 4, 4))


def test_the_teacher_moves_after_the_losses_and_before_the_optimiser(tiny_smooseg):
    """docs/methods/smooseg.md 3C.6: it takes in the student of the step before, and no loss of the step sees the
    change.
    """
    model = tiny_smooseg(omh_head=None)
    model.decode_head.dropout.p = 0.0
    model.cluster_probe.centres.copy_(F.normalize(torch.randn(4, 10), dim=1))
    wrapper, batch = adam(model), raw_batch(3)
    for _ in range(3):
        before = copy.deepcopy(model)
        inputs = model.data_preprocessor(batch, True)['inputs']
        logged = model.train_step(batch, wrapper)
        with torch.no_grad():
            code = before.encode(inputs)
        expected = before.cluster_probe.loss(code)['loss_data']
        torch.testing.assert_close(logged['loss_data'], expected)
        student = before.cluster_probe.student.detach()
        torch.testing.assert_close(
            model.cluster_probe.centres, 0.998 * before.cluster_probe.centres + 0.002 * student
        )
        assert not torch.equal(model.cluster_probe.student, student)


def test_changing_the_teacher_before_the_backward_pass_leaves_the_gradients(tiny_smooseg):
    inputs, gradients = images(), []
    for momentum in (0.0, 1.0):
        torch.manual_seed(1)
        model = tiny_smooseg(cluster_probe=dict(type='PrototypeHead', momentum=momentum), share_prototypes=True)
        model.cluster_probe.centres.copy_(torch.randn(4, 10))
        torch.manual_seed(2)
        total_of(model.loss(inputs, samples())).backward()
        gradients.append(model.decode_head.linear.weight.grad)
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(tiny_smooseg, dtype):
    """Energy and cross-entropy in single precision; the features and the code alone are rounded."""
    model, inputs, results = tiny_smooseg(omh_head=None), images(), []
    seen: list[Tensor] = []
    model.smoothness_loss.register_forward_pre_hook(lambda _, args: seen.append(args[1]))
    for enabled in (False, True):
        torch.manual_seed(2)
        with torch.autocast('cpu', dtype=dtype, enabled=enabled):
            losses = model.loss(inputs, samples())
        assert all(value.dtype == torch.float32 for value in losses.values())
        model.zero_grad()
        total_of(losses).backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        results.append(losses)
    assert [item.dtype for item in seen] == [torch.float32] * 2
    for name in results[0]:
        torch.testing.assert_close(results[1][name], results[0][name], rtol=0.02, atol=0.02)


@pytest.mark.parametrize('count', [1, 0])
def test_too_small_batches(tiny_smooseg, count):
    with pytest.raises(ValueError, match=f'this batch holds {count}. Use a train batch size of at least 2'):
        tiny_smooseg(omh_head=None).smoothness_loss(torch.ones(count, 24, 4, 4), torch.ones(count, 4, 4, 4))


def test_batch_of_one(tiny_smooseg):
    with pytest.raises(ValueError, match='this batch holds 1. Use a train batch size of at least 2'):
        tiny_smooseg().loss(images(1), samples(1))


def test_pairs_of_views(tiny_smooseg):
    with pytest.raises(ValueError, match=r"got the views \['anchor', 'neighbour'\]. Take the wrapper .*NeighbourPairs"):
        tiny_smooseg().loss(dict(anchor=images(), neighbour=images()), samples())


@pytest.fixture
def one_process(tmp_path) -> Iterator[None]:
    """A process group of this process alone."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('share', [False, True])
def test_distributed_wrapper_of_mmengine(tiny_smooseg, one_process, share):
    """It waits for the gradient of every parameter, at each step anew."""
    from mmengine.model import MMDistributedDataParallel

    model = tiny_smooseg(omh_head=dict(OMH, reach=dict(begin=1)), share_prototypes=share, gradient_log_interval=1)
    wrapped, wrapper = MMDistributedDataParallel(model, broadcast_buffers=False), adam(model)
    for _ in range(3):
        logged = wrapped.train_step(raw_batch(labels=False), wrapper)
    assert 'loss_omh_match' in logged and int(model.iteration) == 3


def test_resumed_training_is_the_same_training(tiny_smooseg):
    """From the state of model and optimiser after two steps."""
    batches = [raw_batch(3) for _ in range(4)]

    def train(model: nn.Module, wrapper: OptimWrapper, steps: range) -> None:
        for step in steps:
            torch.manual_seed(step)
            model.train_step(batches[step], wrapper)

    whole = tiny_smooseg()
    wrapper = adam(whole)
    train(whole, wrapper, range(2))
    state, optimiser = copy.deepcopy(whole.state_dict()), copy.deepcopy(wrapper.state_dict())
    train(whole, wrapper, range(2, 4))
    resumed = tiny_smooseg()
    resumed.load_state_dict(state)
    wrapper = adam(resumed)
    wrapper.load_state_dict(optimiser)
    train(resumed, wrapper, range(2, 4))
    assert all(torch.equal(value, resumed.state_dict()[key]) for key, value in whole.state_dict().items())


# ---- prediction


def test_prediction_is_the_teachers(tiny_smooseg):
    model, image = tiny_smooseg(omh_head=None).eval(), images(1)
    model.cluster_probe.centres.copy_(torch.randn(4, 10))
    (result,) = model.predict(image)
    code = F.interpolate(model.encode(image), size=(32, 32), mode='bilinear', align_corners=False)
    cosines = F.cosine_similarity(code[:, None], model.cluster_probe.centres[None, :, :, None, None], dim=2)
    assert (result.pred_sem_seg.data[0] == cosines.argmax(1)[0]).float().mean() > 0.999
    assert set(result.keys()) == {'pred_sem_seg'}
    torch.testing.assert_close(model(image, mode='tensor'), model.cluster_probe(model.encode(image)))


# ---- level 1 of OMH on the host's prototypes


def test_shared_prototypes(tiny_smooseg):
    model = tiny_smooseg(share_prototypes=True)
    model.cluster_probe.centres.copy_(torch.randn(4, 10))
    wrapper, finer = adam(model), model.omh_head.centres[1].clone()
    for _ in range(2):
        model.train_step(raw_batch(3), wrapper)
        assert torch.equal(model.omh_head.centres[0], model.cluster_probe.centres)
    assert not torch.equal(model.omh_head.centres[1], finer)
    (result,) = model.eval().predict(images(1))
    assert torch.equal(result.pred_level1.data, result.pred_sem_seg.data)


@pytest.mark.parametrize('share', [False, True])
def test_optimisers_take_every_parameter_once(tiny_smooseg, share):
    from mmengine.optim import build_optim_wrapper

    model = tiny_smooseg(share_prototypes=share)
    wrapper = build_optim_wrapper(
        model,
        dict(
            constructor='TrainableOptimWrapperConstructor',
            optimizer=dict(type='Adam', lr=1e-4),
            paramwise_cfg=dict(custom_keys={'cluster_probe': dict(lr_mult=5)}),
        ),
    )
    rates = {id(p): group['lr'] for group in wrapper.param_groups for p in group['params']}
    assert rates[id(model.cluster_probe.student)] == pytest.approx(5e-4)
    assert rates[id(model.decode_head.linear.weight)] == pytest.approx(1e-4)
    before = model.omh_head.centres[0].clone()
    model.train_step(raw_batch(3), wrapper)
    assert torch.equal(model.omh_head.centres[0], model.cluster_probe.centres) == share
    assert share or not torch.equal(model.omh_head.centres[0], before)


def test_level_one_has_centres_of_its_own_by_default(tiny_smooseg):
    model = tiny_smooseg()
    assert not model.share_prototypes
    model.loss(images(), samples())
    assert not torch.equal(model.omh_head.centres[0], model.cluster_probe.centres)


# ---- wrong configs


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(share_prototypes=True, omh_head=None), 'share_prototypes=True needs an omh_head'),
        (dict(num_classes=1, omh_head=None), 'num_classes must be at least 2; got 1'),
        (dict(share_prototypes=True, omh_head=dict(type='OMHHead', num_levels=1)), 'with one level no centre learns'),
    ],
)
def test_wrong_configs(tiny_smooseg, wrong, message):
    with pytest.raises(ValueError, match=message):
        tiny_smooseg(**wrong)
