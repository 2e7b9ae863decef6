"""The closing refit of a trained model: its command, its checkpoint, and the predictions from that."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config

from omh_mmseg.apis import SegmentationInferencer
from omh_mmseg.apis.refit import refit_checkpoint
from omh_mmseg.engine.hooks.closing_refit_hook import BEFORE
from omh_mmseg.utils.config import read_config

REFIT = Path(__file__).resolve().parents[2] / 'tools' / 'analysis_tools' / 'refit.py'


@pytest.fixture(scope='module')
def refitted(trained_demo, tmp_path_factory) -> SimpleNamespace:
    """``options`` of a config with few scenes, ``rows`` and ``saved``, what a refit of level 1 and the probe gave."""
    folder = tmp_path_factory.mktemp('refit')
    options: dict[str, object] = {}
    for loader, dataset in dict(train='dataset.dataset', val='dataset', test='dataset').items():
        options[f'{loader}_dataloader.num_workers'] = 0
        options[f'{loader}_dataloader.persistent_workers'] = False
        options[f'{loader}_dataloader.{dataset}.data_root'] = str(folder / 'scenes')
        options[f'{loader}_dataloader.{dataset}.counts'] = dict(train=4, val=3)
    config, saved = read_config(str(trained_demo.config), options), folder / 'refitted.pth'
    rows = refit_checkpoint(config, str(trained_demo.matched), ['probe', 'level1'], delta=0.3, save=saved, device='cpu')
    return SimpleNamespace(config=config, options=options, rows=rows, saved=saved)


def test_rows(refitted) -> None:
    assert [row['clustering'] for row in refitted.rows] == ['probe', 'level1']
    for row in refitted.rows:
        assert row['delta'] == 0.3 and 1 <= row['clusters'] <= 6 and 1 <= row['effective'] <= 6
        assert {f'{kind}{when}' for kind in ('mIoU', 'aAcc') for when in ('', ' before')} <= set(row)


def test_the_checkpoint_has_centres_bias_and_classes(refitted, trained_demo) -> None:
    before, after = (torch.load(path, weights_only=True) for path in (trained_demo.matched, refitted.saved))
    old, new = before['state_dict'], after['state_dict']
    assert set(new) - set(old) == {'cluster_bias.pred_sem_seg', 'cluster_bias.pred_level1'}
    changed = {key for key, value in old.items() if not torch.equal(value, new[key])}
    centres = {'cluster_probe.centres', 'omh_head.centres.0'}
    assert changed - {key for key in changed if key.startswith('assignment')} == centres
    assert set(after[BEFORE]) == {'pred_sem_seg', 'pred_level1'} and after['meta'] == before['meta']
    assert torch.equal(after[BEFORE]['pred_sem_seg'], old['cluster_probe.centres'])
    # Other clusters have other classes: those of before are not kept.
    assert not torch.equal(new['assignment.pred_sem_seg'], old['assignment.pred_sem_seg'])
    assert (new['assignment.pred_level1'] >= -1).all()


def test_every_interface_predicts_with_the_bias(refitted, trained_demo, folder) -> None:
    from mmseg.apis import MMSegInferencer, inference_model, init_model

    image = str(folder / 'a.png')
    config = str(trained_demo.config)
    ours = SegmentationInferencer(config, str(refitted.saved), device='cpu')(image)
    plain = SegmentationInferencer(config, str(trained_demo.matched), device='cpu')(image)
    unbiased = SegmentationInferencer(config, str(refitted.saved), device='cpu')
    unbiased.model.cluster_bias.forget()
    for head in ('probe', 'level1'):
        assert not np.array_equal(ours.clusters[head], plain.clusters[head])
    assert any(not np.array_equal(ours.clusters[head], unbiased(image).clusters[head]) for head in ('probe', 'level1'))
    assert np.array_equal(ours.clusters['level3'], plain.clusters['level3'])
    theirs = inference_model(init_model(Config.fromfile(config), str(refitted.saved), device='cpu'), image)
    assert np.array_equal(theirs.pred_level1.data[0].numpy(), ours.clusters['level1'])
    classes = np.where(ours.classes['probe'] < 0, 255, ours.classes['probe'])
    assert np.array_equal(theirs.pred_sem_seg.data[0].numpy(), classes)
    inferencer = MMSegInferencer(config, str(refitted.saved), device='cpu', show_progress=False)
    assert np.array_equal(inferencer(image, return_datasamples=False)['predictions'], classes)


def test_refitted_clusterings_are_not_refitted_again(refitted) -> None:
    with pytest.raises(ValueError, match='holds clusterings that were refitted: probe'):
        refit_checkpoint(refitted.config, str(refitted.saved), 'probe', device='cpu')


def test_command(refitted, trained_demo, tmp_path, monkeypatch, capsys) -> None:
    def call(*words: object) -> str:
        monkeypatch.setattr(sys, 'argv', [str(REFIT), *map(str, words)])
        try:
            runpy.run_path(str(REFIT), run_name='__main__')
        except SystemExit as error:
            return str(error.code)
        return capsys.readouterr().out

    options = [f'{key}={value}' for key, value in refitted.options.items()]
    run = [trained_demo.config, trained_demo.checkpoint]
    out = call(*run, '--clusterings', 'level2', '--save', tmp_path / 'saved.pth', '--cfg-options', *options)
    assert '| level2' in out and (tmp_path / 'saved.pth').is_file()
    out = call(*run, '--clusterings', 'level7', '--cfg-options', *options)
    assert out.startswith('refit.py: the closing refit is asked for level7; the model has the clusterings probe')
    assert call(*run[:1], tmp_path / 'none.pth').startswith('refit.py: ')
