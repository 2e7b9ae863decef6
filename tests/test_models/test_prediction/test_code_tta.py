from __future__ import annotations

import pytest
import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from omh_mmseg.models.prediction import CodeAveragingTTA
from omh_mmseg.registry import MODELS


def augmented(images: list[Tensor], views: list[tuple[int, ...]], names: list[str | None]) -> dict:
    """A batch as TestTimeAug and the collation give it: one list per view."""

    def sample(image: Tensor, name: str | None) -> SegDataSample:
        size = tuple(image.shape[1:])
        flip = dict(flip=name is not None, flip_direction=name)
        result = SegDataSample(metainfo=dict(**flip, img_shape=size, ori_shape=size))
        result.gt_sem_seg = PixelData(data=torch.zeros(1, *size, dtype=torch.long))
        return result

    return dict(
        inputs=[[image.flip(axes) for image in images] for axes in views],
        data_samples=[[sample(image, name) for image in images] for name in names],
    )


def pictures(height: int, width: int, count: int = 2) -> list[Tensor]:
    torch.manual_seed(4)
    return [torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(count)]


def plain(images: list[Tensor]) -> dict:
    return {key: value[0] for key, value in augmented(images, [()], [None]).items()}


@pytest.fixture
def padding_stego(tiny_stego):
    """Pads to the patch in tests, as the configs do."""

    def build(**parts):
        preprocessor = dict(
            type='ViewsDataPreprocessor', mean=[120.0] * 3, std=[58.0] * 3, bgr_to_rgb=True, size_divisor=8,
            test_cfg=dict(size_divisor=8),
        )  # fmt: skip
        torch.manual_seed(1)
        return tiny_stego(data_preprocessor=preprocessor, **parts).eval()

    return build


@pytest.mark.parametrize('size', [(32, 48), (37, 45)])
def test_two_views_are_flip_averaging(padding_stego, size):
    images = pictures(*size)
    flipping = padding_stego(test_cfg=dict(flip=True))
    expected = flipping.test_step(plain(images))
    tta = CodeAveragingTTA(padding_stego())
    results = tta.test_step(augmented(images, [(), (-1,)], [None, 'horizontal']))
    swapped = tta.test_step(augmented(images, [(-1,), ()], ['horizontal', None]))
    for one, other, third in zip(results, expected, swapped):
        for field in ('pred_sem_seg', 'pred_linear', 'pred_level1', 'pred_level3'):
            assert torch.equal(one.get(field).data, other.get(field).data)
            assert torch.equal(one.get(field).data, third.get(field).data)
        assert one.pred_sem_seg.shape == size and not one.metainfo['flip']


def test_all_four_flips(padding_stego):
    model, images = padding_stego(), pictures(32, 48, 1)
    names = [None, 'horizontal', 'vertical', 'diagonal']
    axes: list[tuple[int, ...]] = [(), (-1,), (-2,), (-2, -1)]
    codes: list[Tensor] = []
    model.predict_from_code = lambda code, inputs, samples: codes.append(code) or samples
    CodeAveragingTTA(model).test_step(augmented(images, axes, names))
    inputs = model.data_preprocessor(plain(images), False)['inputs']
    expected = sum(model.encode(inputs.flip(one)).flip(one) for one in axes) / 4
    torch.testing.assert_close(codes[0], expected)


def test_views_of_another_size_land_on_the_first_grid(padding_stego):
    """The same picture twice, once enlarged: a code that sees colours alone must be the same at every position."""
    model = padding_stego()
    rows, columns = torch.meshgrid(torch.arange(37), torch.arange(45), indexing='ij')
    ramp = torch.stack([rows, columns, rows + columns]).float()
    large = torch.nn.functional.interpolate(ramp[None], scale_factor=2, mode='bilinear')[0]
    model.encode = lambda inputs: torch.nn.functional.avg_pool2d(inputs, 8)
    codes: list[Tensor] = []
    model.predict_from_code = lambda code, inputs, samples: codes.append(code) or samples
    views = [plain([image]) for image in (ramp, large)]
    CodeAveragingTTA(model).test_step({key: [view[key] for view in views] for key in ('inputs', 'data_samples')})
    alone = model.encode(model.data_preprocessor(views[0], False)['inputs'])
    # Cells that hold no padding.
    torch.testing.assert_close(codes[0][..., :4, :5], alone[..., :4, :5], atol=0.02, rtol=0)


def test_crf_gets_the_image_that_is_not_flipped(padding_stego):
    images = pictures(32, 48, 1)
    expected = padding_stego(test_cfg=dict(flip=True, crf=dict(iterations=2))).test_step(plain(images))[0]
    tta = MODELS.build(dict(type='CodeAveragingTTA', module=padding_stego(test_cfg=dict(crf=dict(iterations=2)))))
    (result,) = tta.test_step(augmented(images, [(-1,), ()], ['horizontal', None]))
    assert torch.equal(result.pred_level3.data, expected.pred_level3.data)


def test_pipelines_without_views(tiny_stego):
    with pytest.raises(ValueError, match="needs a pipeline with dict\\(type='TestTimeAug'"):
        CodeAveragingTTA(tiny_stego()).test_step(plain(pictures(32, 32)))


def test_views_that_are_all_flipped(tiny_stego):
    with pytest.raises(ValueError, match='every view of the TestTimeAug is flipped'):
        CodeAveragingTTA(tiny_stego()).test_step(augmented(pictures(32, 32), [(-1,)], ['horizontal']))
