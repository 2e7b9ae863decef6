"""From code to masks: flip averaging, windows, dense CRF, and whose parts are used."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.structures import SegDataSample
from torch import Tensor

from omh_mmseg.models.prediction.crf import DenseCRF
from omh_mmseg.models.prediction.options import PredictionOptions
from omh_mmseg.models.prediction.upsampling import MAX_VALUES

FIELDS = ['pred_sem_seg', 'pred_linear', 'pred_level1', 'pred_level2', 'pred_level3']


@pytest.fixture
def seeded(tiny_stego):
    """Models of the same weights."""

    def build(**test_cfg) -> torch.nn.Module:
        torch.manual_seed(3)
        return tiny_stego(test_cfg=test_cfg).eval()

    return build


def images(count: int = 1, height: int = 32, width: int = 48) -> Tensor:
    """Smooth, normalised and made of whole grey values, as images of 8 bits are."""
    torch.manual_seed(5)
    smooth = F.interpolate(torch.rand(count, 3, 5, 7), size=(height, width), mode='bilinear') * 255
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    return (smooth.round() - mean[:, None, None]) / std[:, None, None]


def maps_of(sample: SegDataSample) -> dict[str, Tensor]:
    return {field: sample.get(field).data for field in FIELDS}


def assert_equal(one: SegDataSample, other: SegDataSample, share: float = 1.0) -> None:
    for field in FIELDS:
        assert (one.get(field).data == other.get(field).data).float().mean() >= share, field


def test_flip_averages_codes_before_anything_else(seeded):
    """docs/methods/evaluation.md 6.3."""
    model, batch = seeded(flip=True), images(2)
    code = (model.encode(batch) + model.encode(batch.flip(3)).flip(3)) / 2
    torch.testing.assert_close(model.prediction_code(batch), code)
    plain = seeded()
    expected = plain.predict_from_code(code, batch, [SegDataSample(), SegDataSample()])
    for one, other, unflipped in zip(model.predict(batch), expected, plain.predict(batch)):
        assert_equal(one, other, 0.999)
        assert not torch.equal(one.pred_sem_seg.data, unflipped.pred_sem_seg.data)


def test_flip_averaged_predictions_mirror_with_the_image(seeded):
    model, batch = seeded(flip=True), images()
    straight, mirrored = model.predict(batch)[0], model.predict(batch.flip(3))[0]
    for field in FIELDS:
        assert (straight.get(field).data == mirrored.get(field).data.flip(-1)).float().mean() > 0.999


def test_a_window_that_covers_the_image_changes_nothing(seeded):
    batch = images(2)
    for crop in ((32, 48), (320, 320)):
        slid = seeded(mode='slide', crop_size=crop, stride=(16, 16)).predict(batch)
        for one, other in zip(slid, seeded().predict(batch)):
            assert_equal(one, other)


def test_windows_average_codes(seeded):
    model, batch = seeded(mode='slide', crop_size=(32, 32), stride=(16, 16)), images()
    left, right = model.encode(batch[..., :32]), model.encode(batch[..., 16:])
    overlap = (left[..., 2:] + right[..., :2]) / 2
    code = torch.cat([left[..., :2], overlap, right[..., 2:]], dim=-1)
    torch.testing.assert_close(model.prediction_code(batch), code)
    assert model.predict(batch)[0].pred_sem_seg.shape == (32, 48)


def crf_by_hand(model: torch.nn.Module, batch: Tensor, size: tuple[int, int], crop: tuple[int, int]) -> dict:
    """Upsample the code, then docs/methods/evaluation.md 6.4 and 6.5."""
    code = F.interpolate(model.encode(batch), size=size, mode='bilinear', align_corners=False)
    code = code[..., : crop[0], : crop[1]]
    cosines = dict(pred_sem_seg=model.cluster_probe.centres)
    cosines |= {f'pred_level{level}': centres for level, centres in enumerate(model.omh_head.centres, start=1)}
    scores = {
        field: torch.log_softmax(2 * torch.einsum('dhw,kd->khw', F.normalize(code[0], dim=0), F.normalize(c, dim=1)), 0)
        for field, c in cosines.items()
    }
    scores['pred_linear'] = torch.log_softmax(model.linear_probe(code)[0], 0)
    pixels = model.data_preprocessor.to_bgr_bytes(batch[0, :, : crop[0], : crop[1]])
    (refined,) = DenseCRF().refine([(pixels, scores)])
    return refined


def test_crf_is_that_of_the_upsampled_code(seeded):
    model, batch = seeded(crf={}), images()
    marginals = crf_by_hand(model, batch, (32, 48), (32, 48))
    (result,) = model.predict(batch)
    plain = maps_of(seeded().predict(batch)[0])
    for field, expected in marginals.items():
        assert (result.get(field).data[0] == expected.argmax(0)).float().mean() > 0.995, field
    assert any(not torch.equal(result.get(field).data, plain[field]) for field in FIELDS)


def test_crf_sees_neither_padding_nor_the_label_size(seeded):
    """It runs on the image alone; its result is brought to the size of the label."""
    model, batch = seeded(crf={}), images(1, 40, 48)
    sample = SegDataSample(metainfo=dict(img_shape=(37, 45), ori_shape=(74, 90)))
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, 74, 90, dtype=torch.long))
    (result,) = model.predict(batch, [sample])
    for field, marginals in crf_by_hand(model, batch, (40, 48), (37, 45)).items():
        full = F.interpolate(marginals[None], size=(74, 90), mode='bilinear', align_corners=False)
        assert result.get(field).data.shape == (1, 74, 90)
        assert (result.get(field).data == full.argmax(1)).float().mean() > 0.995, field


def test_crf_depends_on_the_temperature_and_the_plain_prediction_does_not(seeded):
    batch = images()
    assert_equal(seeded(alpha=2.0).predict(batch)[0], seeded(alpha=20.0).predict(batch)[0])
    soft, sharp = (seeded(alpha=alpha, crf={}).predict(batch)[0] for alpha in (0.5, 20.0))
    assert not torch.equal(soft.pred_level3.data, sharp.pred_level3.data)
    torch.testing.assert_close(soft.pred_linear.data, sharp.pred_linear.data)


def test_all_options_at_once(seeded):
    model = seeded(crf=dict(iterations=2), flip=True, mode='slide', crop_size=32, stride=16, levels=[1])
    results = model.predict(images(2))
    assert set(results[0].keys()) == {'pred_sem_seg', 'pred_linear', 'pred_level1'}
    assert model.predictor.options.stride == (16, 16) and model.predictor.crf.settings['iterations'] == 2


def test_what_is_not_asked_for_is_neither_refined_nor_predicted(seeded, monkeypatch):
    model, refined = seeded(crf=dict(iterations=1), levels=[2], linear=False), []
    refine = model.predictor.crf.refine
    monkeypatch.setattr(
        model.predictor.crf, 'refine', lambda jobs: refine(refined.append(list(job[1])) or job for job in jobs)
    )
    (sample,) = model.predict(images())
    assert refined == [['pred_sem_seg', 'pred_level2']] and set(sample.keys()) == set(refined[0])


def test_parts_are_those_of_the_model_at_the_time(seeded):
    """Replaced, copied or read back: nothing of the model that the predictor was made for is left in it."""
    model, other, batch = seeded(crf={}), seeded(crf={}), images()
    with torch.no_grad():
        for centres in (other.cluster_probe.centres, *other.omh_head.centres):
            centres.copy_(centres.flip(0))
    expected = other.predict(batch)[0]
    plain = model.predict(batch)[0]
    for changed in (copy.copy(model), copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        changed.__dict__['_modules'] = dict(changed._modules)
        assert_equal(changed.predict(batch)[0], plain)
        changed.cluster_probe, changed.omh_head = other.cluster_probe, other.omh_head
        assert_equal(changed.predict(batch)[0], expected)
    assert_equal(model.predict(batch)[0], plain)
    assert not torch.equal(plain.pred_level3.data, expected.pred_level3.data)
    model.omh_head = model.linear_probe = None
    assert set(model.predict(batch)[0].keys()) == {'pred_sem_seg'}


def test_crf_with_the_preprocessor_of_mmseg(tiny_stego, seeded):
    """It has no bytes to give back by itself."""
    batch, preprocessor = images(), copy.deepcopy(seeded().data_preprocessor)
    theirs = dict(type='SegDataPreProcessor', size_divisor=1, bgr_to_rgb=True)
    theirs |= {name: getattr(preprocessor, name).flatten().tolist() for name in ('mean', 'std')}
    torch.manual_seed(3)
    model = tiny_stego(test_cfg=dict(crf={}), data_preprocessor=theirs).eval()
    assert type(model.data_preprocessor) is SegDataPreProcessor
    assert_equal(model.predict(batch)[0], seeded(crf={}).predict(batch)[0])


def test_crf_with_a_preprocessor_that_cannot_give_images_back(tiny_stego):
    assert tiny_stego(data_preprocessor=None).predictor.crf is None
    with pytest.raises(ValueError, match='BaseDataPreprocessor cannot give them back. Set model.data_pre'):
        tiny_stego(data_preprocessor=None, test_cfg=dict(crf={}))


@pytest.mark.parametrize(
    ('crf', 'height', 'width'), [(None, 512, 1024), (dict(iterations=1), 64, 96)], ids=['plain', 'CRF']
)
def test_memory_is_bounded_for_wide_codes_and_many_clusters(tiny_stego, monkeypatch, crf, height, width):
    """Neither codes of 512 channels nor the scores of 256 clusters of a large image are upsampled at once."""
    model = tiny_stego(
        decode_head=dict(type='ProjectionHead', channels=512),
        omh_head=dict(type='OMHHead', num_levels=2, expansion=64.0),
        test_cfg=dict(crf=crf),
    ).eval()
    upsampled, interpolate = [], F.interpolate

    def recorded(maps: Tensor, **options) -> Tensor:
        result = interpolate(maps, **options)
        upsampled.append(result.shape)
        return result

    monkeypatch.setattr(F, 'interpolate', recorded)
    code = torch.randn(1, 512, height // 8, width // 8)
    (result,) = model.predict_from_code(code, torch.zeros(1, 3, height, width), [SegDataSample()])
    assert result.pred_level2.shape == (1, height, width)[1:]
    assert all(shape[1] < 512 and shape.numel() <= MAX_VALUES for shape in upsampled)
    # Each row of each cluster's map once.
    assert sum(shape[1] * shape[2] for shape in upsampled if shape[3] == width) == (3 * 4 + 256) * height


@pytest.mark.parametrize(
    ('wrong', 'message'),
    [
        (dict(mode='slide'), r"'slide' needs crop_size and stride, in pixels"),
        (dict(mode='slide', crop_size=(20, 24), stride=8), r'\(20, 24\) and stride \(8, 8\) must be multiples of 8'),
        (dict(mode='slide', crop_size=24, stride=(32, 8)), 'leave gaps; lower the stride'),
        (dict(mode='slide', crop_size=(24, 24, 24), stride=8), 'crop_size must be one or two numbers'),
        (dict(alpha=0), 'test_cfg.alpha must be .*; got 0'),
        (dict(flips=True), 'test_cfg has no flips; did you mean flip'),
        (dict(crf=dict(backend='gpu')), 'backend must be one of'),
        (dict(crf=dict(steps=3)), "crf must be None or keywords of DenseCRF; got {'steps': 3}"),
    ],
)
def test_wrong_options(tiny_stego, wrong, message):
    with pytest.raises(ValueError, match=message):
        tiny_stego(test_cfg=wrong)


def test_other_keys_are_left_to_other_parts():
    assert PredictionOptions.from_test_cfg(dict(assignment=None, flip=True), 8) == PredictionOptions(flip=True)
