from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from omh_mmseg.apis import Segmentation, find_images, init_model
from omh_mmseg.registry import MODELS
from omh_mmseg.utils.config import read_config

HEADS = ['probe', 'linear', 'level1', 'level2', 'level3']


def same(one: Segmentation, other: Segmentation) -> bool:
    return all(np.array_equal(one.clusters[head], other.clusters[head]) for head in one.clusters)


def as_label(classes: np.ndarray) -> np.ndarray:
    return np.where(classes < 0, 255, classes)


def bgr(path) -> np.ndarray:
    return np.array(Image.open(path).convert('RGB'))[:, :, ::-1].copy()


def test_one_image(inferencer, folder):
    run = inferencer()
    result = run(folder / 'a.png')
    assert list(result.clusters) == HEADS == list(run.heads)
    assert run.heads == dict(probe=6, linear=6, level1=6, level2=12, level3=24)
    for head, labels in result.clusters.items():
        assert labels.shape == (96, 128) and 0 <= labels.min() and labels.max() < run.heads[head]
    assert result.path == str(folder / 'a.png') and run.classes[3] == 'building'


def test_agrees_with_inference_model_of_mmseg(trained_demo, inferencer, folder):
    from mmseg.apis import inference_model
    from mmseg.apis import init_model as init_model_of_mmseg

    model = init_model_of_mmseg(Config.fromfile(str(trained_demo.config)), str(trained_demo.matched), device='cpu')
    expected = inference_model(model, str(folder / 'a.png'))
    result = inferencer()(folder / 'a.png')
    assert np.array_equal(as_label(result.classes['probe']), expected.pred_sem_seg.data[0].numpy())
    assert np.array_equal(result.clusters['probe'], expected.pred_clusters.data[0].numpy())
    assert np.array_equal(result.clusters['level3'], expected.pred_level3.data[0].numpy())
    ours = inference_model(init_model(trained_demo.config, trained_demo.matched, 'cpu'), str(folder / 'a.png'))
    assert torch.equal(ours.pred_level2.data, expected.pred_level2.data)
    model = init_model(trained_demo.config, trained_demo.checkpoint, 'cpu')
    unmatched = inference_model(model, str(folder / 'a.png'))
    assert 'pred_clusters' not in unmatched
    assert np.array_equal(unmatched.pred_sem_seg.data[0].numpy(), result.clusters['probe'])


@pytest.mark.parametrize('name', ['a.png', 'more/c.png'])
def test_agrees_with_the_inferencer_of_mmseg(trained_demo, inferencer, folder, tmp_path, name):
    from mmseg.apis import MMSegInferencer

    theirs = MMSegInferencer(str(trained_demo.config), str(trained_demo.matched), device='cpu', show_progress=False)
    predicted = theirs(str(folder / name), out_dir=str(tmp_path / 'out'), return_datasamples=False)['predictions']
    assert np.array_equal(predicted, as_label(inferencer()(folder / name).classes['probe']))
    assert len(list((tmp_path / 'out' / 'vis').iterdir())) == len(list((tmp_path / 'out' / 'pred').iterdir())) == 1


def test_paths_arrays_lists_and_folders(inferencer, folder):
    run = inferencer()
    every = run(folder)
    assert [result.path for result in every] == [str(folder / name) for name in ('a.png', 'b.jpg', 'more/c.png')]
    assert every[2].clusters['probe'].shape == (64, 60)
    array = run(bgr(folder / 'a.png'))
    assert array.path is None and same(array, every[0])
    mixed = run([bgr(folder / 'more/c.png'), str(folder / 'b.jpg')])
    assert same(mixed[0], every[2]) and same(mixed[1], every[1])
    assert not same(every[0], every[1])


@pytest.mark.parametrize('batch_size', [2, 5])
def test_batches_of_one_size_keep_the_order(inferencer, folder, batch_size, monkeypatch):
    run = inferencer(batch_size=batch_size)
    sizes, test_step = [], run.model.test_step
    monkeypatch.setattr(run.model, 'test_step', lambda data: sizes.append(len(data['inputs'])) or test_step(data))
    results = run(folder)
    assert sizes == [2, 1]
    alone = inferencer()(folder)
    for one, other in zip(results, alone):
        assert one.path == other.path
        assert all((one.clusters[head] == other.clusters[head]).mean() > 0.999 for head in HEADS)


def test_finer_levels_merge_into_the_coarsest(inferencer, folder):
    run = inferencer()
    result = run(folder / 'a.png')
    assert list(result.merged) == ['level2', 'level3']
    for level in (2, 3):
        ancestors = run.hierarchy.ancestors(level).numpy()
        assert np.array_equal(result.merged[f'level{level}'], ancestors[result.clusters[f'level{level}']])
    assert result.merged['level3'].max() < 6


def test_classes_where_clusters_are_matched(inferencer, folder):
    result = inferencer()(folder / 'a.png')
    assert list(result.classes) == ['probe', 'linear', 'level1']
    assert np.array_equal(result.classes['probe'], np.array([5, 4, 3, 2, 1, -1])[result.clusters['probe']])
    assert np.array_equal(result.classes['level1'], np.array([1, 0, 3, 2, 5, 4])[result.clusters['level1']])
    assert list(inferencer('checkpoint')(folder / 'a.png').classes) == ['linear']


def test_levels_and_host_alone(inferencer, folder):
    assert list(inferencer(levels=[2])(folder / 'a.png').clusters) == ['probe', 'linear', 'level2']
    assert list(inferencer(levels=[])(folder / 'a.png').clusters) == ['probe', 'linear']


def test_options_of_the_prediction(inferencer, folder):
    plain, flipped = inferencer(), inferencer(flip=True)
    assert flipped.model.predictor.options.flip and not plain.model.predictor.options.flip
    refined = inferencer(crf=dict(iterations=2))
    assert refined.model.predictor.crf.settings['iterations'] == 2
    results = [run(folder / 'a.png') for run in (plain, flipped, refined)]
    assert not same(results[0], results[1]) and not same(results[0], results[2])
    assert inferencer(crf=True).model.predictor.crf.settings['iterations'] == 10
    assert inferencer(crf=False, options={'model.test_cfg.crf.iterations': 3}).model.predictor.crf is None


def test_protocols_cut_the_image(inferencer, folder):
    run = inferencer(protocol='stego-64-no-crf')
    result = run(folder / 'a.png')
    assert result.clusters['probe'].shape == (64, 64) and run.model.predictor.options.flip
    assert result.metainfo['crop_bbox'] == (10, 0, 74, 64)
    assert inferencer(protocol='stego', flip=False, crf=False).model.predictor.options.flip is False


# ---- wrong input


@pytest.mark.parametrize(
    'array', [np.zeros(8), np.zeros((8, 8, 2)), np.zeros((8, 8, 4), np.uint8), np.zeros((0, 8, 3), np.uint8)]
)
def test_arrays_that_are_no_images(inferencer, array):
    with pytest.raises(ValueError, match=r'must be uint8 \(height, width, 3\), blue first; got'):
        inferencer()(array)


def test_files_that_are_no_images(inferencer, folder):
    (folder / 'd.png').write_bytes(b'\x89PNG broken')
    with pytest.raises(OSError, match='d.png: the image cannot be read'):
        inferencer()(folder / 'd.png')
    with pytest.raises(FileNotFoundError, match='there is no image absent.png'):
        inferencer()('absent.png')
    left_out = []
    results = list(inferencer().iterate(find_images(folder), lambda path, error: left_out.append(path)))
    assert len(results) == 3 and left_out == [str(folder / 'd.png')]


def test_folders_without_images(tmp_path):
    with pytest.raises(FileNotFoundError, match='there are no images in'):
        find_images(tmp_path)
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        find_images(tmp_path / 'absent')


def test_images_of_one_stem(folder):
    Image.open(folder / 'b.jpg').save(folder / 'b.png')
    with pytest.raises(ValueError, match='have the same stem'):
        find_images(folder)


def test_checkpoints_of_other_models(trained_demo, tmp_path):
    config = Config.fromfile(str(trained_demo.config))
    with pytest.raises(ValueError, match=r'of another model than the config: .*\(70, .* differ in shape'):
        init_model(config, trained_demo.checkpoint, 'cpu', {'model.decode_head.channels': 12})
    state = torch.load(trained_demo.checkpoint, weights_only=False)
    del state['state_dict']['cluster_probe.centres']
    torch.save(state, tmp_path / 'part.pth')
    with pytest.raises(ValueError, match=r"lacks 1 weights of the config's model: cluster_probe.centres"):
        init_model(str(trained_demo.config), tmp_path / 'part.pth', 'cpu')
    with pytest.raises(FileNotFoundError, match='there is no checkpoint'):
        init_model(str(trained_demo.config), tmp_path / 'absent.pth', 'cpu')


def test_checkpoints_from_before_assignments(trained_demo, tmp_path):
    state = torch.load(trained_demo.checkpoint, weights_only=False)
    weights = {key: value for key, value in state['state_dict'].items() if not key.startswith('assignment.')}
    torch.save(dict(state_dict=weights), tmp_path / 'old.pth')
    model = init_model(str(trained_demo.config), tmp_path / 'old.pth', 'cpu')
    assert model.assignment.known == [] and 'classes' in model.dataset_meta


def test_batch_size(inferencer):
    with pytest.raises(ValueError, match='batch_size must be .*; got 0'):
        inferencer(batch_size=0)


def test_a_converted_checkpoint_of_hp_predicts(tmp_path):
    """The authors' checkpoints hold neither the project head nor the reference pools, which only training needs."""
    config = read_config(str(Path(__file__).resolve().parents[2] / 'configs' / 'hp_vit-t8_demo.py'))
    init_default_scope('mmseg')
    state = MODELS.build(config.model).state_dict()
    for key in ('project_head.weight', 'project_head.bias', 'agnostic_pool', 'specific_pool', 'iteration'):
        del state[key]
    torch.save(dict(state_dict=state), tmp_path / 'converted.pth')
    model = init_model(config, tmp_path / 'converted.pth', 'cpu')
    assert torch.equal(model.cluster_probe.centres, state['cluster_probe.centres'])
