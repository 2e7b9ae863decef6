"""The metric: written predictions, several processes, mmengine's loop."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from metric_samples import CLASSES, expected, make_metric, make_sample, run
from mmengine.dataset import DefaultSampler
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmseg.structures import SegDataSample
from PIL import Image
from torch.utils.data import Dataset
from two_ranks import on_two_ranks


def test_written_predictions_are_classes_where_known(tmp_path: Path, messages: list[str]) -> None:
    """The assignment given goes before the model's; pixels of clusters without a class are 255."""
    sample = make_sample(0)
    clusters = sample.pred_sem_seg.data[0].numpy()

    def written(folder: str, **options: object) -> np.ndarray:
        run(make_metric(output_dir=str(tmp_path / folder), **options), [sample])
        return np.asarray(Image.open(tmp_path / folder / '000.png'))

    np.testing.assert_array_equal(written('unknown'), clusters)
    assert any('predictions of 1 images, as cluster numbers, are in' in text for text in messages)
    with pytest.raises(ValueError, match="output='classes': the classes of the clusters of pred_sem_seg are not known"):
        written('asked', output='classes')
    sample.set_metainfo(dict(cluster_classes=dict(pred_sem_seg=[3, 2, 1, -1])))
    np.testing.assert_array_equal(written('known'), np.array([3, 2, 1, 255])[clusters])
    assert any('as class numbers (255 where a cluster has no class)' in text for text in messages)
    np.testing.assert_array_equal(written('clusters', output='clusters'), clusters)
    given = written('given', assignment=dict(pred_sem_seg=[1, 1, 0, 2]))
    np.testing.assert_array_equal(given, np.array([1, 1, 0, 2])[clusters])
    with pytest.raises(ValueError, match='photos/000.jpg: pred_sem_seg has values 0..3, but the assignment has 2 cl'):
        written('short', assignment=dict(pred_sem_seg=[1, 0]))


def test_writes_predictions(tmp_path: Path) -> None:
    """As mmseg's ``test.py --out`` configures it; images of one name in different folders stay apart."""
    samples = [make_sample(i) for i in range(3)]
    samples[2].set_metainfo(dict(img_path='other/001.jpg'))
    scores = run(make_metric(output_dir=str(tmp_path / 'out'), keep_results=True), samples)
    assert scores['probe/mIoU'] == expected(samples, 'pred_sem_seg')[0]
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['000.png', '001.png', 'other_001.png']
    for name, sample in zip(('000', '001', 'other_001'), samples, strict=True):
        with Image.open(tmp_path / 'out' / f'{name}.png') as image:
            assert image.mode == 'L'
            np.testing.assert_array_equal(np.asarray(image), sample.pred_sem_seg.data[0].numpy())


def test_format_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='output_dir'):
        make_metric(format_only=True)
    assert run(make_metric(format_only=True, output_dir=str(tmp_path)), [make_sample(0, labelled=False)]) == {}
    assert (tmp_path / '000.png').is_file()


def test_too_many_clusters_for_a_png(tmp_path: Path) -> None:
    sample = make_sample(0)
    sample.pred_sem_seg.data = sample.pred_sem_seg.data + 300
    with pytest.raises(ValueError, match='8-bit PNG'):
        run(make_metric(output_dir=str(tmp_path)), [sample])


def _sharded_sample(index: int) -> SegDataSample:
    return make_sample(index, labelled=index != 1, fields=('pred_sem_seg', 'pred_linear', 'pred_level2'))


def _classed_sample() -> SegDataSample:
    sample = make_sample(0)
    sample.set_metainfo(dict(cluster_classes=dict(pred_sem_seg=[1, 3, 0, 2])))
    return sample


def _evaluate_shard(folder: Path, rank: int) -> None:
    for round_up in (True, False):
        indices = list(DefaultSampler(range(5), shuffle=False, round_up=round_up))
        metric = make_metric(bootstrap=20)
        metric.use_cluster_sizes(dict(pred_sem_seg=5, pred_level2=6))
        for index in indices:
            metric.process(None, [_sharded_sample(index).to_dict()])
        scores = metric.evaluate(5)
        result = dict(
            scores=scores, counts=metric.last_result['probe'].counts, indices=indices, assignment=metric.last_assignment
        )
        torch.save(result, folder / f'{rank}_{round_up}.pth')
    # The second process gets no image, and with it no classes.
    metric = make_metric(assignment='checkpoint')
    if rank == 0:
        metric.process(None, [_classed_sample().to_dict()])
    torch.save(metric.evaluate(1), folder / f'{rank}_lone.pth')


def test_two_processes(tmp_path: Path) -> None:
    """Uneven shards and a sampler's repeated image give what one process gives, on both ranks."""
    on_two_ranks(partial(_evaluate_shard, tmp_path), tmp_path)
    metric = make_metric(bootstrap=20)
    metric.use_cluster_sizes(dict(pred_sem_seg=5, pred_level2=6))
    scores = run(metric, [_sharded_sample(index) for index in range(5)])
    assert {'probe/mIoU', 'probe/mIoU_low', 'probe/NMI', 'linear/aAcc_high'} <= set(scores)
    for round_up, shards in ((True, ([0, 2, 4], [1, 3, 0])), (False, ([0, 2, 4], [1, 3]))):
        for rank in range(2):
            result = torch.load(tmp_path / f'{rank}_{round_up}.pth', weights_only=False)
            assert result['indices'] == shards[rank]
            assert result['scores'] == scores
            assert list(result['assignment']) == ['pred_sem_seg', 'pred_level2']
            for field, classes in metric.last_assignment.items():
                np.testing.assert_array_equal(result['assignment'][field], classes)
            np.testing.assert_array_equal(result['counts'], metric.last_result['probe'].counts)
    lone = run(make_metric(assignment='checkpoint'), [_classed_sample()])
    assert torch.load(tmp_path / '0_lone.pth') == torch.load(tmp_path / '1_lone.pth') == lone


class _Samples(Dataset):
    metainfo = dict(classes=CLASSES)

    def __init__(self, labelled: bool) -> None:
        self.labelled = labelled

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=torch.zeros(3, 6, 8), data_samples=make_sample(index, labelled=self.labelled))


class _Repeater(BaseModel):
    """Learns nothing and predicts what its samples already carry."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(
        self, inputs: list[torch.Tensor], data_samples: list[SegDataSample], mode: str = 'tensor'
    ) -> dict[str, torch.Tensor] | list[SegDataSample]:
        return dict(loss=self.weight.sum()) if mode == 'loss' else data_samples


@pytest.mark.parametrize('labelled', [False, True])
def test_mmengine_carries_on_without_scores(tmp_path: Path, labelled: bool) -> None:
    """Training with validation, logging and best-checkpoint selection, then testing, all finish."""
    loader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    evaluator = dict(type='UnsupervisedIoUMetric')
    runner = Runner(
        model=_Repeater(),
        work_dir=str(tmp_path),
        train_dataloader=dict(loader, dataset=_Samples(labelled)),
        val_dataloader=dict(loader, dataset=_Samples(labelled)),
        test_dataloader=dict(loader, dataset=_Samples(labelled)),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=2, val_interval=1),
        val_cfg=dict(),
        test_cfg=dict(),
        val_evaluator=evaluator,
        test_evaluator=evaluator,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False, save_best='probe/mIoU')),
        log_processor=dict(by_epoch=False),
        default_scope='mmseg',
        experiment_name=f'metric_{labelled}_{tmp_path.name}',
    )
    runner.train()
    assert runner.iter == 2
    assert (tmp_path / 'iter_2.pth').is_file()
    scores = runner.test()
    assert set(scores) == ({f'probe/{figure}' for figure in ('mIoU', 'aAcc', 'NMI', 'ARI')} if labelled else set())
    assert bool(list(tmp_path.glob('best_*'))) is labelled
