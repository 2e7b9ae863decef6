from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from omh_mmseg.models.segmentors import UnsupervisedSegmentor
from omh_mmseg.registry import MODELS

HOST_LOSSES = ['loss_self', 'loss_knn', 'loss_rand']


def pairs(count: int = 3, size: int = 32) -> dict[str, Tensor]:
    return dict(anchor=torch.randn(count, 3, size, size), neighbour=torch.randn(count, 3, size, size))


def sample(label: tuple[int, int] | None = None, **metainfo) -> SegDataSample:
    result = SegDataSample(metainfo=metainfo)
    if label is not None:
        result.gt_sem_seg = PixelData(data=torch.randint(0, 4, (1, *label)))
    return result


def samples(count: int = 3, label: tuple[int, int] | None = (32, 32)) -> list[SegDataSample]:
    return [sample(label) for _ in range(count)]


def total_of(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([value for name, value in losses.items() if 'loss' in name]).sum()


# ---- training


def test_losses_of_host_probes_and_omh(tiny_stego):
    losses = tiny_stego().loss(pairs(), samples())
    named = [name for name in losses if 'loss' in name]
    assert named == [
        *HOST_LOSSES, 'loss_cluster_probe', 'loss_linear_probe', 'loss_omh_centre', 'loss_omh_match'
    ]  # fmt: skip
    assert all(torch.isfinite(value) for value in losses.values())
    figures = set(losses) - set(named)
    assert {'omh_used_1', 'omh_sparsity_12', 'omh_violation_23'} <= figures
    assert {'code_gradient_host', 'code_gradient_omh_match'} <= figures
    assert not any(losses[name].requires_grad for name in figures)


def test_host_alone(tiny_stego):
    losses = tiny_stego(omh_head=None).loss(pairs(), samples())
    assert list(losses) == [*HOST_LOSSES, 'loss_cluster_probe', 'loss_linear_probe']


def test_omh_changes_nothing_of_the_host(tiny_stego):
    """Same random numbers with and without OMH: same losses, at weight 0 the same gradient of the head."""
    inputs, results = pairs(), []
    for omh in (None, dict(type='OMHHead', match=None)):
        torch.manual_seed(1)
        model = tiny_stego(omh_head=None)
        if omh is not None:
            model.omh_head = MODELS.build(dict(omh, in_channels=10, num_classes=4))
        torch.manual_seed(2)
        losses = model.loss(inputs, samples())
        total_of(losses).backward()
        results.append(([losses[name] for name in HOST_LOSSES], model.decode_head.linear.weight.grad))
    assert results[0][0] == results[1][0]
    torch.testing.assert_close(results[0][1], results[1][1])


def test_gradients(tiny_stego):
    model = tiny_stego()
    model.train()
    total_of(model.loss(pairs(), samples())).backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    frozen = {name for name, _ in model.named_parameters() if name.startswith('backbone.')}
    assert trained == {name for name, _ in model.named_parameters()} - frozen
    assert frozen and all(parameter.grad.norm() > 0 for name, parameter in model.named_parameters() if name in trained)


def test_probes_never_move_the_head(tiny_stego):
    model = tiny_stego(omh_head=None)
    losses = model.loss(pairs(), samples())
    (losses['loss_cluster_probe'] + losses['loss_linear_probe']).backward()
    assert all(parameter.grad is None for parameter in model.decode_head.parameters())


def test_correspondences_come_from_features_with_a_mask_of_their_own(tiny_stego):
    """docs/methods/features.md 2.2."""
    model, inputs, seen, masks = tiny_stego(), pairs(), [], []
    model.decode_head.dropout.p = 0.5
    model.decode_head.linear.register_forward_pre_hook(lambda _, args: masks.append(args[0] == 0))
    model.correlation_loss.register_forward_pre_hook(lambda _, args: seen.extend(args))
    model.loss(inputs, samples())
    for features, name in ((seen[0], 'anchor'), (seen[2], 'neighbour')):
        clean = model.extract_feat(inputs[name])
        dropped = (features == 0).flatten(2).all(2)
        assert 0.2 < dropped.float().mean() < 0.8
        torch.testing.assert_close(features, torch.where(dropped[:, :, None, None], 0.0, 2 * clean))
    assert not torch.equal(seen[0] == 0, masks[0][:3])
    assert torch.isfinite(seen[1]).all() and seen[1].shape == seen[3].shape == (3, 10, 4, 4)


def test_probes_and_omh_see_the_anchors_only(tiny_stego):
    model, seen = tiny_stego(), []
    model.decode_head.dropout.p = 0.0
    model.omh_head.loss = lambda code, *_: seen.append(code) or {}
    inputs = pairs()
    model.loss(inputs, samples())
    torch.testing.assert_close(seen[0], model.encode(inputs['anchor']))


@pytest.mark.parametrize('start', [0, 2])
def test_gradient_norms_are_relative_to_the_host(tiny_stego, start):
    reach = dict(type='FixedWeight', begin=start)
    omh_head = dict(type='OMHHead', cluster=dict(loss_weight=0.1), reach=reach)
    model = tiny_stego(omh_head=omh_head, gradient_log_interval=2)
    for step in range(4):
        losses = model.loss(pairs(), samples())
        logged = {name for name in losses if name.startswith('code_')}
        expected: set[str] = set()
        if step % 2 == 0:
            shown = ['centre'] if step < start else ['centre', 'cluster', 'match']
            expected = {f'code_{figure}_omh_{loss}' for figure in ('gradient', 'cosine') for loss in shown}
            expected.add('code_gradient_host')
            if step >= start:
                assert losses['code_gradient_omh_match'] > 0
            assert losses['code_gradient_omh_centre'] == losses['code_cosine_omh_centre'] == 0
        assert logged == expected
    assert int(model.iteration) == 4


def test_gradient_norms_equal_those_of_autograd(tiny_stego):
    model, codes = tiny_stego(), []
    model.decode_head.register_forward_hook(lambda *args: codes.append(args[-1]))
    losses = model.loss(pairs(), samples())
    norms = []
    for names in (HOST_LOSSES, ['loss_omh_match']):
        (gradient,) = torch.autograd.grad(sum(losses[name] for name in names), codes[0], retain_graph=True)
        norms.append(gradient.norm())
    torch.testing.assert_close(losses['code_gradient_host'], norms[0])
    torch.testing.assert_close(losses['code_gradient_omh_match'], norms[1] / norms[0])


@pytest.mark.parametrize('reach', ['FixedWeight', 'HostShare'])
def test_gradient_norms_are_of_what_is_added_to_the_host(tiny_stego, reach):
    """The share of the host's gradient is that of anchors and neighbours, and what is logged is what was added."""
    omh_head = dict(type='OMHHead', match=dict(loss_weight=0.5), reach=dict(type=reach, begin=1))
    model, codes = tiny_stego(omh_head=omh_head, gradient_log_interval=1), []
    model.decode_head.register_forward_hook(lambda *args: codes.append(args[-1]))
    assert 'loss_omh_match' not in model.loss(pairs(), samples())
    losses = model.loss(pairs(), samples())
    host = sum(losses[name] for name in HOST_LOSSES)
    own, both = (
        torch.autograd.grad(loss, codes[-1], retain_graph=True)[0] for loss in (host, host + losses['loss_omh_match'])
    )
    ratio = (both - own).norm() / own.norm()
    torch.testing.assert_close(losses['code_gradient_omh_match'], ratio)
    cosine = ((both - own) * own).sum() / (both - own).norm() / own.norm()
    torch.testing.assert_close(losses['code_cosine_omh_match'], cosine)
    if reach == 'HostShare':
        assert float(ratio) == pytest.approx(0.5, rel=1e-4)
    assert own[3:].any() and torch.equal(both[3:], own[3:])


def test_without_labels(tiny_stego):
    model = tiny_stego()
    losses = model.loss(pairs(), samples(label=None))
    assert losses['loss_linear_probe'] == 0
    total_of(losses).backward()
    assert (model.linear_probe.classifier.weight.grad == 0).all()
    assert model.decode_head.linear.weight.grad.norm() > 0


def test_some_without_labels(tiny_stego):
    model, inputs = tiny_stego(omh_head=None), pairs()
    model.decode_head.dropout.p = 0.0
    some = [sample(), *samples(2)]
    losses = model.loss(inputs, some)
    labels = torch.cat([torch.full((1, 32, 32), 255), *(item.gt_sem_seg.data for item in some[1:])])
    expected = model.linear_probe.loss(model.encode(inputs['anchor']), labels)
    torch.testing.assert_close(losses['loss_linear_probe'], expected['loss_linear_probe'])


def test_labels_train_the_linear_probe_only(tiny_stego):
    inputs, gradients = pairs(), []
    for items in (samples(), samples(label=None)):
        torch.manual_seed(1)
        model = tiny_stego()
        total_of(model.loss(inputs, items)).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert {name for name in gradients[0] if not torch.equal(gradients[0][name], gradients[1][name])} == {
        'linear_probe.classifier.weight', 'linear_probe.classifier.bias'
    }  # fmt: skip


def test_without_a_linear_probe(tiny_stego):
    model = tiny_stego(linear_probe=None)
    assert 'loss_linear_probe' not in model.loss(pairs(), samples())
    assert 'pred_linear' not in model.eval().predict(torch.randn(1, 3, 32, 32))[0]


def test_batch_of_one(tiny_stego):
    with pytest.raises(ValueError, match='this batch holds 1. Use a train batch size of at least 2'):
        tiny_stego().loss(pairs(1), samples(1))


@pytest.mark.parametrize(
    'inputs', [torch.zeros(2, 3, 32, 32), dict(anchor=torch.zeros(2, 3, 32, 32))], ids=['one', 'half']
)
def test_single_views(tiny_stego, inputs):
    with pytest.raises(ValueError, match=r"trains on pairs \(anchor, neighbour\).*type='NeighbourPairs'"):
        tiny_stego().loss(inputs, samples(2))


def test_training_step_of_mmengine(tiny_stego):
    """Raw items through the data preprocessor, the losses summed, the optimiser stepped."""
    from mmengine.optim import OptimWrapper

    model = tiny_stego()
    views = {name: [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for _ in range(2)] for name in pairs()}
    before = model.decode_head.linear.weight.clone()
    wrapper = OptimWrapper(torch.optim.Adam((p for p in model.parameters() if p.requires_grad), 0.01))
    logged = model.train_step(dict(inputs=views, data_samples=samples(2)), wrapper)
    total = sum(value for name, value in logged.items() if name.startswith('loss_'))
    torch.testing.assert_close(logged['loss'], total)
    assert (model.decode_head.linear.weight != before).any()


@pytest.fixture
def one_process(tmp_path) -> Iterator[None]:
    """A process group of this process alone."""
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize('label', [(32, 32), None], ids=['labels', 'no labels'])
def test_distributed_wrapper_of_mmengine(tiny_stego, one_process, label):
    """It waits for the gradient of every parameter, at each step anew."""
    from mmengine.model import MMDistributedDataParallel
    from mmengine.optim import OptimWrapper

    model = tiny_stego(omh_head=dict(type='OMHHead', reach=dict(begin=1)), gradient_log_interval=1)
    wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
    wrapper = OptimWrapper(torch.optim.Adam((p for p in model.parameters() if p.requires_grad), 0.01))
    for _ in range(3):
        views = {name: [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8) for _ in range(2)] for name in pairs()}
        logged = wrapped.train_step(dict(inputs=views, data_samples=samples(2, label)), wrapper)
    assert 'loss_omh_match' in logged and int(model.iteration) == 3


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_autocast(tiny_stego, dtype):
    model = tiny_stego()
    with torch.autocast('cpu', dtype=dtype):
        losses = model.loss(pairs(), samples())
    total_of(losses).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


# ---- prediction


def by_hand(model: UnsupervisedSegmentor, image: Tensor, sizes: list[tuple[int, int]]) -> dict[str, Tensor]:
    """Upsample the code, then compare every pixel with every centre; the last size is cropped to the one before it."""
    with torch.no_grad():
        code = model.encode(image[None])
        for size in sizes:
            code = F.interpolate(code, size=size, mode='bilinear', align_corners=False)
    pixels = code[0].flatten(1).t()  # (P, D)
    result = dict(pred_linear=model.linear_probe(code)[0].argmax(0))
    centres = dict(pred_sem_seg=model.cluster_probe.centres)
    if model.omh_head is not None:
        centres |= {f'pred_level{level}': c for level, c in enumerate(model.omh_head.centres, start=1)}
    for name, matrix in centres.items():
        distance = torch.stack([1 - F.cosine_similarity(pixels, centre[None], dim=1) for centre in matrix], 1)
        result[name] = distance.argmin(1).reshape(code.shape[-2:])
    return result


@pytest.mark.parametrize(
    ('item', 'expected'),
    [
        (dict(), (32, 48)),
        (dict(ori_shape=(50, 70), img_shape=(32, 48)), (50, 70)),
        (dict(ori_shape=(50, 70), img_shape=(32, 48), label=(50, 70)), (50, 70)),
        (dict(ori_shape=(50, 70), img_shape=(32, 48), label=(32, 48)), (32, 48)),
        (dict(ori_shape=(50, 70), img_shape=(32, 48), crop_bbox=(0, 0, 1, 1)), (32, 48)),
    ],
    ids=['bare', 'original', 'label', 'small label', 'crop'],
)
def test_prediction_is_the_nearest_centre_of_the_upsampled_code(tiny_stego, item, expected):
    model = tiny_stego().eval()
    image = torch.randn(3, 32, 48)
    (result,) = model.predict(image[None], [sample(**item)])
    fields = {name for name in result.keys() if name.startswith('pred')}
    assert fields == {'pred_sem_seg', 'pred_linear', 'pred_level1', 'pred_level2', 'pred_level3'}
    for name, reference in by_hand(model, image, [expected]).items():
        predicted = result.get(name).data
        assert predicted.shape == (1, *expected) and predicted.dtype == torch.int64
        # Two centres may be equally near up to rounding.
        assert (predicted[0] == reference).float().mean() > 0.999, name


def test_output_size_of_the_input(tiny_stego):
    model = tiny_stego(test_cfg=dict(output_size='input')).eval()
    (result,) = model.predict(
        torch.randn(1, 3, 32, 48), [sample(ori_shape=(50, 70), img_shape=(32, 48), label=(50, 70))]
    )
    assert result.pred_sem_seg.shape == (32, 48)


def test_padding_is_cut_off(tiny_stego):
    model = tiny_stego().eval()
    image = torch.zeros(3, 40, 48)
    image[:, :37, :45] = torch.randn(3, 37, 45)
    (result,) = model.predict(image[None], [sample(ori_shape=(37, 45), img_shape=(37, 45))])
    for name, reference in by_hand(model, image, [(40, 48)]).items():
        assert (result.get(name).data[0] == reference[:37, :45]).float().mean() > 0.999, name


def test_padded_and_resized(tiny_stego):
    model = tiny_stego().eval()
    (result,) = model.predict(torch.randn(1, 3, 40, 48), [sample(ori_shape=(74, 90), img_shape=(37, 45))])
    assert result.pred_sem_seg.shape == result.pred_level3.shape == (74, 90)


def test_each_image_of_a_batch_has_its_size(tiny_stego):
    model, images = tiny_stego().eval(), torch.randn(2, 3, 32, 32)
    both = model.predict(images, [sample(ori_shape=(20, 30)), sample(label=(64, 40))])
    assert [tuple(item.pred_sem_seg.shape) for item in both] == [(20, 30), (64, 40)]
    (second,) = model.predict(images[1:], [sample(label=(64, 40))])
    assert (second.pred_level2.data == both[1].pred_level2.data).float().mean() > 0.999


def test_host_alone_predicts_no_levels(tiny_stego):
    (result,) = tiny_stego(omh_head=None).eval().predict(torch.randn(1, 3, 32, 32))
    assert {name for name in result.keys()} == {'pred_sem_seg', 'pred_linear'}


@pytest.mark.parametrize('levels', [[], [1], [3, 1]])
def test_chosen_levels(tiny_stego, levels):
    image = torch.randn(1, 3, 32, 32)
    torch.manual_seed(1)
    every = tiny_stego().eval().predict(image)[0]
    torch.manual_seed(1)
    chosen = tiny_stego(test_cfg=dict(levels=levels)).eval().predict(image)[0]
    names = {'pred_sem_seg', 'pred_linear', *(f'pred_level{level}' for level in levels)}
    assert set(chosen.keys()) == names
    assert all(torch.equal(chosen.get(name).data, every.get(name).data) for name in names)


def test_modes_of_forward(tiny_stego):
    model, image = tiny_stego().eval(), torch.randn(1, 3, 32, 32)
    assert model(image, mode='tensor').shape == (1, 4, 4, 4)
    assert model(image, [sample()], mode='predict')[0].pred_sem_seg.shape == (32, 32)
    assert model.encode_decode(image).shape == (1, 4, 32, 32)
    assert model.encode(image).shape == (1, 10, 4, 4)


def test_training_and_evaluation_modes(tiny_stego):
    model, image = tiny_stego(), torch.randn(1, 3, 32, 32)
    model.train()
    assert model.decode_head.dropout.training and not model.backbone.backbone.training
    assert not torch.equal(model.encode(image), model.encode(image))
    model.eval()
    assert torch.equal(model.encode(image), model.encode(image))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.predict(image)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_state_survives_saving(tiny_stego, tmp_path):
    model = tiny_stego()
    for _ in range(2):
        model.loss(pairs(), samples())
    torch.save(model.state_dict(), tmp_path / 'state.pth')
    other = tiny_stego()
    other.load_state_dict(torch.load(tmp_path / 'state.pth', weights_only=True))
    assert int(other.iteration) == 2 and not [key for key in other.state_dict() if key.endswith('omh_head.iteration')]
    image = torch.randn(1, 3, 32, 32)
    assert torch.equal(other.eval().encode(image), model.eval().encode(image))


# ---- wrong configs


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(test_cfg=dict(output_size='half')), r"output_size must be one of \('original', 'input'\); got 'half'"),
        (dict(test_cfg=dict(levels=[4])), r'test_cfg.levels must be among \[1, 2, 3\]; got \[4\]'),
        (dict(test_cfg=dict(levels=[1]), omh_head=None), r'choose levels of OMH, and the model has none; got \[1\]'),
        (dict(test_cfg=dict(mode='half')), r"mode must be one of \('whole', 'slide'\); got 'half'"),
        (dict(pretrained='a.pth'), "pretrained must be None; got 'a.pth'. Set model.backbone.checkpoint"),
    ],
)
def test_wrong_configs(tiny_stego, wrong, message):
    with pytest.raises(ValueError, match=message):
        tiny_stego(**wrong)


@pytest.mark.parametrize(
    'part',
    [
        dict(decode_head=dict(type='ProjectionHead', channels=10)), dict(cluster_probe=dict(type='ClusterProbe')),
        dict(linear_probe=dict(type='LinearProbe')), dict(omh_head=dict(type='OMHHead')),
    ],
)  # fmt: skip
def test_sizes_given_as_in_mmseg_must_be_those_filled_in(tiny_stego, part):
    """Users of mmseg write ``in_channels`` and ``num_classes`` into every head."""
    ((name, config),) = part.items()
    fine = tiny_stego(**{name: dict(config, num_classes=4)})
    assert fine.num_classes == 4
    for key, remedy in (('num_classes', 'and set model.num_classes'), ('in_channels', 'Leave it out')):
        with pytest.raises(ValueError, match=rf'model\.{name}\.{key}=99 would reach nothing: .*{remedy}'):
            tiny_stego(**{name: dict(config, **{key: 99})})


def test_tools_of_mmseg_may_clear_training_settings(tiny_stego):
    model = tiny_stego(train_cfg=None, pretrained=None)
    assert model.decode_head.num_classes == 4
