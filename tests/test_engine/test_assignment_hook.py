"""The assignment travels from the metric into model and checkpoints; reports and warnings are written."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch.utils.data import Dataset

import omh_mmseg  # noqa: F401
from omh_mmseg.apis.assignment import fit_assignment
from omh_mmseg.engine.hooks.assignment_hook import find_assignment
from omh_mmseg.models.prediction import ClusterAssignment
from omh_mmseg.registry import DATASETS, METRICS, MODELS
from omh_mmseg.structures.assignment import read_assignment
from omh_mmseg.utils.config import split_dataset

CLUSTER_OF = torch.tensor([2, 0, 1])
HOOKS = dict(assignment=dict(type='AssignmentHook'), score_report=dict(type='ScoreReportHook'))


@DATASETS.register_module(force=True)
class ThreeStripes(Dataset):
    """Two images of three classes side by side; another split has them in another order."""

    metainfo = dict(classes=('sky', 'tree', 'road'))

    def __init__(
        self, order: tuple[int, ...] = (0, 1, 2), labelled: bool = True, indices: int = 2, **_: object
    ) -> None:
        self.labels = torch.tensor(order).repeat_interleave(2).expand(1, 4, 6)
        self.labelled = labelled
        self.length = indices

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        sample = SegDataSample(metainfo=dict(img_path=f'{index}.jpg'))
        if self.labelled:
            sample.gt_sem_seg = PixelData(data=self.labels)
        return dict(inputs=torch.zeros(3, 4, 6), data_samples=sample)


@METRICS.register_module(force=True)
class Constant(BaseMetric):
    """A score of another kind."""

    def process(self, data_batch: object, data_samples: object) -> None:
        self.results.append(1)

    def compute_metrics(self, results: list) -> dict[str, float]:
        return dict(constant=1.0)


@MODELS.register_module(force=True)
class StripeModel(BaseModel):
    """Finds the stripes, as four clusters of which one is never used."""

    def __init__(self, given: dict | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.assignment = ClusterAssignment(dict(pred_sem_seg=4, pred_level2=6), given)

    def forward(
        self, inputs: list, data_samples: list[SegDataSample], mode: str = 'tensor'
    ) -> dict[str, torch.Tensor] | list[SegDataSample]:
        if mode == 'loss':
            return dict(loss=self.weight.sum())
        stripes = CLUSTER_OF.repeat_interleave(2).expand(1, 4, 6)
        for sample in data_samples:
            sample.pred_sem_seg = PixelData(data=stripes)
            sample.pred_level2 = PixelData(data=2 * stripes + (torch.arange(6) % 2))
        self.assignment.annotate(data_samples)
        return data_samples


def make_config(work_dir: Path, given: dict | None = None, **changes: object) -> Config:
    loader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    dataset = dict(type='ThreeStripes', pipeline=[])
    settings = dict(
        model=dict(type='StripeModel', given=given),
        work_dir=str(work_dir),
        # At the end of a finite sampler mmengine sleeps for two seconds.
        train_dataloader=dict(
            loader,
            sampler=dict(type='SeededInfiniteSampler', shuffle=False),
            dataset=dict(type='Pairs', dataset=dict(dataset, order=(1, 2, 0))),
        ),
        val_dataloader=dict(loader, dataset=dataset),
        test_dataloader=dict(loader, dataset=dataset),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2),
        val_cfg=dict(),
        test_cfg=dict(),
        val_evaluator=dict(type='UnsupervisedIoUMetric'),
        test_evaluator=dict(type='UnsupervisedIoUMetric'),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False), **HOOKS),
        log_processor=dict(by_epoch=False),
        default_scope='mmseg',
        experiment_name=f'assignment_{work_dir.parent.name}_{work_dir.name}',
    )
    return Config({**settings, **changes})


def trained(config: Config) -> Runner:
    config.train_dataloader.dataset = config.train_dataloader.dataset.dataset
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


def stored(path: Path, field: str = 'pred_sem_seg') -> list[int]:
    return torch.load(path, weights_only=False)['state_dict'][f'assignment.{field}'].tolist()


def test_assignment_reaches_the_checkpoints(tmp_path: Path) -> None:
    """Also those of the very iteration, which are saved before the validation; others stay as they were."""
    runner = trained(make_config(tmp_path / 'run'))
    assert find_assignment(runner.model).as_dict() == dict(
        pred_sem_seg=[1, 2, 0, -1], pred_level2=[1, 1, 2, 2, 0, 0]
    )
    assert stored(tmp_path / 'run' / 'iter_1.pth') == [-2, -2, -2, -2]
    for number in (2, 3, 4):
        assert stored(tmp_path / 'run' / f'iter_{number}.pth') == [1, 2, 0, -1]
        assert stored(tmp_path / 'run' / f'iter_{number}.pth', 'pred_level2') == [1, 1, 2, 2, 0, 0]
    saved = torch.load(tmp_path / 'run' / 'iter_4.pth', weights_only=False)
    assert saved['meta']['iter'] == 4 and {'optimizer', 'message_hub'} <= set(saved)
    assert not list((tmp_path / 'run').glob('.*'))


def test_checkpoint_of_an_earlier_iteration_is_left_alone(tmp_path: Path) -> None:
    """Its clusters may be others than those that were matched."""
    config = make_config(tmp_path / 'run')
    config.default_hooks.checkpoint.interval = 3
    config.train_cfg.update(max_iters=5, val_interval=4)
    trained(config)
    assert stored(tmp_path / 'run' / 'iter_3.pth') == [-2, -2, -2, -2]
    assert stored(tmp_path / 'run' / 'iter_5.pth') == [1, 2, 0, -1]


def test_checkpoint_is_read_again(tmp_path: Path) -> None:
    trained(make_config(tmp_path / 'run'))
    config = make_config(
        tmp_path / 'again', load_from=str(tmp_path / 'run' / 'iter_4.pth'),
        test_evaluator=dict(type='UnsupervisedIoUMetric', assignment='checkpoint'),
    )  # fmt: skip
    scores = Runner.from_cfg(config).test()
    assert scores['probe/mIoU'] == 100
    (folder,) = (tmp_path / 'again').glob('*/scores/test')
    assert read_assignment(folder / 'assignment.json')['pred_sem_seg'].tolist() == [1, 2, 0, -1]


def test_assignment_by_hand_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        runner = trained(make_config(tmp_path / 'run', given=dict(pred_sem_seg=[0, 0, 0, 1])))
    assert find_assignment(runner.model).as_dict()['pred_sem_seg'] == [0, 0, 0, 1]
    assert stored(tmp_path / 'run' / 'iter_4.pth') == [0, 0, 0, 1]


def test_without_labels_nothing_is_known(tmp_path: Path) -> None:
    config = make_config(tmp_path / 'run')
    config.val_dataloader.dataset.labelled = False
    runner = trained(config)
    assert find_assignment(runner.model).known == []
    assert stored(tmp_path / 'run' / 'iter_4.pth') == [-2, -2, -2, -2]
    assert not list((tmp_path / 'run').glob('*/scores'))


def test_report_of_a_validation(tmp_path: Path) -> None:
    trained(make_config(tmp_path / 'run'))
    (folder,) = (tmp_path / 'run').glob('*/scores/val')
    assert sorted(file.name for file in folder.iterdir()) == [
        'assignment.json', 'probe_classes.csv', 'probe_confusion.csv', 'probe_confusion.png',
    ]  # fmt: skip
    written = json.loads((folder / 'assignment.json').read_text())
    assert (written['split'], written['iteration'], written['classes']) == ('val', 4, ['sky', 'tree', 'road'])
    with (folder / 'probe_classes.csv').open() as file:
        rows = list(csv.DictReader(file))
    assert [(row['class'], row['clusters'], float(row['iou']), row['pixels']) for row in rows] == [
        ('sky', '2', 100, '16'), ('tree', '0', 100, '16'), ('road', '1', 100, '16'),
    ]  # fmt: skip
    with (folder / 'probe_confusion.csv').open() as file:
        matrix = list(csv.reader(file))
    assert matrix[0] == ['cluster', 'assigned', 'sky', 'tree', 'road']
    assert matrix[3] == ['2', 'sky', '16', '0', '0'] and matrix[4] == ['3', '', '0', '0', '0']


@pytest.mark.parametrize('save_best', [None, 'probe/mIoU', ['probe/mIoU', 'probe/aAcc']])
def test_selection_by_labels_is_named(tmp_path: Path, save_best: str | list[str] | None) -> None:
    """By default the last checkpoint is kept, for which no label is needed."""
    config = make_config(tmp_path / 'run')
    config.default_hooks.checkpoint = dict(type='CheckpointHook', interval=2, by_epoch=False, save_best=save_best)
    trained(config)
    (log,) = (tmp_path / 'run').glob('*/*.log')
    warned = 'the best checkpoint is chosen by probe/mIoU' in log.read_text()
    best = list((tmp_path / 'run').glob('best_probe_mIoU_iter_*.pth'))
    assert warned == bool(best) == (save_best is not None)
    for path in best:
        assert stored(path) == [1, 2, 0, -1]


@pytest.mark.parametrize(
    ('hook', 'name', 'message'),
    [
        (dict(type='CheckpointHook', save_best='probe/mIuO', rule='greater'), 'probe/mIuO', 'did you mean probe/mIoU'),
        (dict(type='CheckpointHook', save_best=['probe/mIoU', 'mIoU']), 'mIoU', 'gives probe/mIoU, probe/aAcc'),
        (dict(type='EarlyStoppingHook', monitor='probe/miou'), 'probe/miou', 'did you mean probe/mIoU'),
        (dict(type='EarlyStoppingHook', monitor='level1/mIoU'), 'level1/mIoU', 'a validation of this run gives'),
        (dict(type='EarlyStoppingHook', monitor='linear/mIoU'), 'linear/mIoU', 'a validation of this run gives'),
    ],
)
def test_a_score_that_does_not_exist_stops_a_training_before_it_begins(
    tmp_path: Path, hook: dict, name: str, message: str
) -> None:
    config = make_config(tmp_path / 'run', custom_hooks=[dict(hook, by_epoch=False) if 'save_best' in hook else hook])
    with pytest.raises(ValueError, match=rf"is '{name}', and .*{message}"):
        trained(config)
    assert not list((tmp_path / 'run').glob('*.pth'))


@pytest.mark.parametrize('loops', [dict(), dict(val_dataloader=None, val_cfg=None, val_evaluator=None)])
def test_nothing_is_stopped_by_scores_that_no_validation_gives(tmp_path: Path, loops: dict) -> None:
    """Without labels, or without a validation."""
    config = make_config(tmp_path / 'run', custom_hooks=[dict(type='EarlyStoppingHook', monitor='probe/mIoU')], **loops)
    if not loops:
        config.val_dataloader.dataset.labelled = False
    with pytest.raises(ValueError, match="EarlyStoppingHook.monitor is 'probe/mIoU', and this run has no scores"):
        trained(config)


def test_scores_of_other_metrics_are_looked_for_at_the_first_validation(tmp_path: Path) -> None:
    config = make_config(tmp_path / 'run', val_evaluator=dict(type='Constant'), custom_hooks=[
        dict(type='EarlyStoppingHook', monitor='constants', rule='greater')
    ])  # fmt: skip
    with pytest.raises(ValueError, match='a validation of this run gives constant; did you mean constant'):
        trained(config)
    config.custom_hooks[0].monitor = 'constant'
    config.experiment_name += '_again'
    runner = Runner.from_cfg(config)
    runner.train()
    assert runner.iter == runner.max_iters


def test_fitting_on_another_split(tmp_path: Path) -> None:
    trained(make_config(tmp_path / 'run'))
    checkpoint = tmp_path / 'run' / 'iter_4.pth'
    config = make_config(tmp_path / 'fit')
    out, saved = tmp_path / 'train.json', tmp_path / 'with_train.pth'
    content = torch.load(checkpoint, weights_only=False)
    content['meta']['dataset_meta'] = dict(classes=('class_0', 'class_1', 'class_2'))
    torch.save(content, checkpoint)
    found = fit_assignment(config, str(checkpoint), out, 'train', images=1, save=saved)
    assert found['pred_sem_seg'].tolist() == [2, 0, 1, -1]
    written = json.loads(out.read_text())
    assert (written['split'], written['images'], written['scores']['probe/mIoU']) == ('train', 1, 100)
    assert stored(saved) == [2, 0, 1, -1] and stored(checkpoint) == [1, 2, 0, -1]
    assert torch.load(saved, weights_only=False)['meta']['dataset_meta']['classes'] == ('sky', 'tree', 'road')
    assert not list((tmp_path / 'fit').glob('*/scores'))
    applied = make_config(tmp_path / 'applied', load_from=str(checkpoint))
    applied.test_evaluator.assignment = str(out)
    assert Runner.from_cfg(applied).test()['probe/mIoU'] == 0


def test_fitting_refuses(tmp_path: Path) -> None:
    config = make_config(tmp_path / 'run')
    torch.save(dict(state_dict=StripeModel().state_dict()), tmp_path / 'a.pth')
    with pytest.raises(ValueError, match="split must be one of .*got 'trian'"):
        split_dataset(config, 'trian')
    with pytest.raises(ValueError, match='at least one image'):
        fit_assignment(config, 'a.pth', tmp_path / 'a.json', images=0)
    config.val_dataloader.dataset.labelled = False
    with pytest.raises(ValueError, match='the val split has no labels'):
        fit_assignment(config, str(tmp_path / 'a.pth'), tmp_path / 'a.json', 'val')
    config.test_evaluator = [dict(type='IoUMetric')]
    with pytest.raises(ValueError, match='no UnsupervisedIoUMetric, only IoUMetric'):
        fit_assignment(config, 'a.pth', tmp_path / 'a.json')
    assert not (tmp_path / 'a.json').exists()
