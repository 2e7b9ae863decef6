"""Checks before a run is built."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.logging import MMLogger

from omh_mmseg.engine import launch
from omh_mmseg.models.prediction.crf import dense_crf
from omh_mmseg.shipped import config_path
from omh_mmseg.utils.config import check_checkpoint, read_config


@pytest.fixture
def config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / 'configs' / 'stego_demo.py'
    file.parent.mkdir()
    file.write_text("model = dict(type='A', width=1)\noptim_wrapper = dict(type='OptimWrapper')\n")
    return file


class TestLoadConfig:
    def test_default_work_dir(self, config_file: Path, tmp_path: Path) -> None:
        config = launch.load_config(str(config_file), options={'model.width': 2})
        assert config.work_dir == './work_dirs/stego_demo' and (tmp_path / 'work_dirs' / 'stego_demo').is_dir()
        assert config.model.width == 2 and config.launcher == 'none'

    def test_command_line_wins_over_the_config(self, config_file: Path) -> None:
        with config_file.open('a') as file:
            file.write("work_dir = 'from_config'\n")
        assert launch.load_config(str(config_file)).work_dir == 'from_config'
        assert launch.load_config(str(config_file), work_dir='given').work_dir == 'given'

    def test_missing_config_names_similar_ones(self, config_file: Path) -> None:
        with pytest.raises(FileNotFoundError, match='did you mean .*stego_demo.py'):
            launch.load_config(str(config_file.with_name('stego_dmo.py')))

    def test_unwritable_work_dir(self, config_file: Path) -> None:
        with pytest.raises(PermissionError, match='cannot be written.*--work-dir'):
            launch.load_config(str(config_file), work_dir=str(config_file / 'runs'))


class TestCheckpoint:
    def test_missing_names_what_is_there(self, tmp_path: Path) -> None:
        (tmp_path / 'iter_500.pth').touch()
        with pytest.raises(FileNotFoundError, match='holds iter_500.pth'):
            check_checkpoint(str(tmp_path / 'iter_400.pth'))

    def test_addresses_and_files_pass(self, tmp_path: Path) -> None:
        (tmp_path / 'a.pth').touch()
        check_checkpoint(str(tmp_path / 'a.pth'))
        check_checkpoint('https://host.invalid/a.pth')


class TestCheckInputs:
    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            ({'data_root': 'nowhere'}, "data_root 'nowhere' is not a folder. .*data_root=FOLDER"),
            ({'data_root': '.', 'model.backbone.checkpoint': 'no.pth'}, 'No backbone weights at .*no.pth'),
        ],
    )
    def test_what_is_not_there_is_named_before_anything_is_built(self, options: dict, message: str) -> None:
        config = read_config(config_path('omh_stego_mobilenet-v2_folder'), options | {'num_classes': 3})
        with pytest.raises(FileNotFoundError, match=message):
            launch.check_inputs(config, 'train', 'val')
        if options['data_root'] == '.':
            launch.check_inputs(config, 'test')

    def test_addresses_shipped_files_and_other_data_sets_pass(self) -> None:
        launch.check_inputs(read_config(config_path('omh_stego_vit-t8_demo'), {}), 'train', 'val', 'test')
        config = read_config(config_path('omh_stego_mobilenet-v2_folder'), {'data_root': '.', 'num_classes': 3})
        launch.check_inputs(config, 'train', 'val')
        launch.check_inputs(Config(dict(train_dataloader=None)), 'train', 'test')


def test_what_comes_next_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(MMLogger, 'info', lambda self, text, *_: told.append(text))
    launch.tell_next('./work_dirs/my photos')
    (line,) = told
    assert "predict.py 'work_dirs/my photos' IMAGES" in line and "explore.py 'work_dirs/my photos' IMAGES" in line


class TestSwitches:
    def test_mixed_precision(self) -> None:
        config = Config(dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='Adam'))))
        launch.use_mixed_precision(config)
        assert config.optim_wrapper == dict(type='AmpOptimWrapper', loss_scale='dynamic', optimizer=dict(type='Adam'))
        launch.use_mixed_precision(config)
        with pytest.raises(ValueError, match='OptimWrapper, but the config has ApexOptimWrapper'):
            launch.use_mixed_precision(Config(dict(optim_wrapper=dict(type='ApexOptimWrapper'))))

    def test_drawing(self) -> None:
        config = Config(dict(default_hooks=dict(visualization=dict(type='V')), visualizer=dict(type='S')))
        launch.draw_predictions(config, show_dir='pictures')
        assert config.default_hooks.visualization == dict(type='V', draw=True)
        assert config.visualizer.save_dir == 'pictures'
        with pytest.raises(ValueError, match='SegVisualizationHook'):
            launch.draw_predictions(Config(dict(default_hooks=dict())), show=True)

    @pytest.mark.parametrize('several', [False, True])
    def test_predictions_are_kept(self, several: bool) -> None:
        evaluator = dict(type='M')
        config = Config(dict(test_evaluator=[evaluator, evaluator] if several else evaluator))
        launch.keep_predictions(config, 'out')
        evaluators = config.test_evaluator if several else [config.test_evaluator]
        assert all(one == dict(type='M', output_dir='out', keep_results=True) for one in evaluators)

    def test_test_time_augmentation(self) -> None:
        config = Config(
            dict(
                model=dict(type='A'),
                tta_model=dict(type='T'),
                tta_pipeline=[dict(type='P')],
                test_dataloader=dict(dataset=dict(pipeline=[])),
            )
        )
        launch.use_test_time_augmentation(config)
        assert config.model == dict(type='T', module=dict(type='A'))
        assert config.test_dataloader.dataset.pipeline == [ConfigDict(type='P')]
        with pytest.raises(ValueError, match='tta_model and tta_pipeline'):
            launch.use_test_time_augmentation(Config(dict(model=dict())))


@pytest.fixture
def logged(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """What mmengine's logger says, wherever its own handlers write; that of an earlier test may be a quiet one."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = MMLogger.get_instance(request.node.nodeid, log_level='INFO')
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


class TestInterrupt:
    def test_says_where_to_go_on(self, tmp_path: Path, logged: list[str]) -> None:
        (tmp_path / launch.LATEST).write_text(str(tmp_path / 'iter_7.pth'))
        with pytest.raises(SystemExit) as caught, launch.interruptible(str(tmp_path)):
            raise KeyboardInterrupt
        assert caught.value.code == 130
        assert 'iter_7.pth' in logged[-1] and '--resume' in logged[-1]

    def test_without_checkpoint(self, tmp_path: Path, logged: list[str]) -> None:
        with pytest.raises(SystemExit), launch.interruptible(str(tmp_path)):
            raise KeyboardInterrupt
        assert 'has no checkpoint yet' in logged[-1]


class TestCheckCrf:
    @pytest.mark.parametrize('test_cfg', [None, dict(mode='whole'), dict(crf=None), dict(crf=dict(iterations=3))])
    def test_right_ones_pass(self, test_cfg: dict | None) -> None:
        launch.check_crf(Config(dict(model=dict(type='STEGO', test_cfg=test_cfg))))

    def test_missing_extra_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dense_crf, '_import_problem', lambda: 'No module named pydensecrf')
        config = Config(dict(model=dict(test_cfg=dict(crf=dict(backend='pydensecrf')))))
        with pytest.raises(ImportError, match=r'pip install omh-mmseg\[crf\]'):
            launch.check_crf(config)

    def test_unknown_keywords(self) -> None:
        with pytest.raises(ValueError, match='test_cfg.crf must be None or keywords of DenseCRF'):
            launch.check_crf(Config(dict(model=dict(test_cfg=dict(crf=dict(steps=1))))))
