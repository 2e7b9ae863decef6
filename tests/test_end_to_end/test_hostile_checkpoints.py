"""Checkpoints that would run code, and those that are broken or of another model, through every command and API."""

from __future__ import annotations

import contextlib
import os
import pickle
import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mmengine.runner
import mmseg
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import DefaultScope, init_default_scope
from PIL import Image

import omh_mmseg  # noqa: F401
from omh_mmseg.engine.work_dir_lock import LOCK, NOTE
from omh_mmseg.registry import MODELS

REPOSITORY = Path(__file__).resolve().parents[2]
TOOLS = REPOSITORY / 'tools'
TOOLS_OF_MMSEG = Path(mmseg.__file__).parent / '.mim' / 'tools'
PLACES = ('state_dict', 'meta', 'optimizer', 'message_hub', 'array')
FORMS = ('zip', 'legacy', 'plain')


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable, tuple]:
        return os.makedirs, (str(self.trace), 0o777, True)


def save(content: Any, path: Path, form: str = 'zip') -> Path:
    if form == 'plain':
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == 'zip')
    return path


@pytest.fixture(scope='module')
def case(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A small config, an honest checkpoint of it, an image; ``trace`` is what a payload would make."""
    folder = tmp_path_factory.mktemp('hostile')
    config = Config.fromfile(str(REPOSITORY / 'configs' / 'omh_smooseg_vit-t8_demo.py'))
    config.model.backbone.checkpoint = None
    config.model.backbone.backbone.arch = dict(embed_dims=12, num_layers=1, num_heads=3, feedforward_channels=24)
    config.train_cfg.max_iters = config.train_cfg.val_interval = 2
    for split in ('train', 'val', 'test'):
        loader = config[f'{split}_dataloader']
        loader.update(num_workers=0, persistent_workers=False, batch_size=2)
        loader.dataset.update(data_root=str(folder / 'scenes'), counts=dict(train=4, val=2))
    config.dump(str(folder / 'config.py'))
    init_default_scope('mmseg')
    torch.manual_seed(0)
    model = MODELS.build(config.model)
    DefaultScope._instance_dict.clear()
    history = HistoryBuffer([0.5, np.float64(0.25)], [1, 1])
    honest = dict(
        meta=dict(epoch=0, iter=2, cfg='model = dict()', seed=0), state_dict=model.state_dict(),
        optimizer=dict(state={}, param_groups=[]),
        message_hub=dict(log_scalars={'train/loss': history}, runtime_info=dict(iter=2), resumed_keys={}),
    )  # fmt: skip
    image = folder / 'image.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(image)
    for kind in ('runs', 'files'):
        (folder / kind).mkdir()
    return SimpleNamespace(
        folder=folder, config=folder / 'config.py', honest=honest, image=image, trace=folder / 'EXECUTED',
        files=folder / 'files',
    )  # fmt: skip


def poisoned(case: SimpleNamespace, place: str, form: str) -> Path:
    """The honest checkpoint with a payload in it."""
    content = {key: dict(value) for key, value in case.honest.items()}
    payload = Payload(case.trace)
    section, value = ('meta', np.array([payload], dtype=object)) if place == 'array' else (place, payload)
    content[section]['extra'] = value
    return save(content, case.files / f'{place}_{form}.pth', form)


def broken(case: SimpleNamespace, kind: str) -> Path:
    """A file that is no checkpoint, or one of another model."""
    path, state = case.files / f'{kind}.pth', dict(case.honest['state_dict'])
    whole = save(case.honest, case.files / 'whole.pth').read_bytes()
    contents: dict[str, bytes] = dict(
        zero_bytes=b'', random=np.random.default_rng(1).bytes(5000), text=b'<html>404: not found</html>' * 40,
        truncated=whole[: len(whole) // 2], flipped=whole[:30] + bytes(255 - byte for byte in whole[30:]),
    )  # fmt: skip
    if kind in contents:
        path.write_bytes(contents[kind])
        return path
    values: dict[str, Any] = dict(
        a_list=[1, 2, 3], a_number=3, a_tensor=torch.zeros(3), no_state=dict(meta=dict(iter=1)),
        empty_state=dict(case.honest, state_dict={}), state_list=dict(case.honest, state_dict=[1]),
        resnet={f'layer{level}.0.conv1.weight': torch.zeros(2, 2, 1, 1) for level in range(1, 5)},
        renamed=dict(case.honest, state_dict={f'net.{key}': value for key, value in state.items()}),
        a_part=dict(case.honest, state_dict={key: state[key] for key in list(state) if 'omh_head' not in key}),
        other_classes=dict(
            case.honest, state_dict=state | {'cluster_probe.centres': state['cluster_probe.centres'][:-1]}
        ),
        nan=dict(
            case.honest, state_dict={key: value * torch.nan if value.is_floating_point() else value
                                     for key, value in state.items()},
        ),
        no_meta=dict(case.honest, meta=[1]),
    )  # fmt: skip
    return save(values[kind], path)


BROKEN = (
    'zero_bytes', 'random', 'text', 'truncated', 'flipped', 'a_list', 'a_number', 'a_tensor', 'no_state', 'empty_state',
    'state_list', 'resnet', 'renamed', 'a_part', 'other_classes', 'nan', 'no_meta',
)  # fmt: skip
RUN = 'WORK_DIR'
COMMANDS: dict[str, tuple[str, ...]] = {
    'load_from': ('train.py', 'CONFIG', '--work-dir', RUN, '--cfg-options', 'load_from=FILE'),
    'resume': ('train.py', 'CONFIG', '--work-dir', RUN, '--resume'),
    'resume from': ('train.py', 'CONFIG', '--work-dir', RUN, '--resume', '--cfg-options', 'load_from=FILE'),
    'test': ('test.py', 'CONFIG', 'FILE', '--work-dir', RUN),
    'tta': ('test.py', 'CONFIG', 'FILE', '--work-dir', RUN, '--tta'),
    'predict': ('predict.py', 'CONFIG', 'FILE', 'IMAGE', '--out-dir', RUN, '--device', 'cpu'),
    'fit': ('analysis_tools/fit_assignment.py', 'CONFIG', 'FILE', '--work-dir', RUN, '--out', f'{RUN}/a.json'),
    'protocols': ('analysis_tools/compare_protocols.py', 'CONFIG', 'FILE', '--protocols', 'mmseg', '--device', 'cpu'),
    'plans': ('analysis_tools/hierarchy.py', 'plans', '--checkpoints', 'FILE', '--out', RUN),
    'parts': ('analysis_tools/hierarchy.py', 'parts', 'CONFIG', 'FILE', '--out', RUN),
    'scores': ('analysis_tools/hierarchy.py', 'scores', 'CONFIG', 'FILE', '--out', RUN),
    'stability': ('analysis_tools/hierarchy.py', 'stability', 'CONFIG', 'FILE', 'FILE', '--out', RUN),
    'recovery': ('analysis_tools/hierarchy.py', 'recovery', 'CONFIG', 'FILE', '--out', RUN),
    'control': (
        'analysis_tools/hierarchy.py', 'recovery', 'CONFIG', 'GOOD', '--control', 'CONFIG', 'FILE', '--out', RUN,
    ),
    'features': ('prepare.py', 'features', 'CONFIG', '--folder', RUN, '--cfg-options', 'load_from=FILE'),
    'backbone of a training': (
        'train.py', 'CONFIG', '--work-dir', RUN, '--cfg-options', 'model.backbone.checkpoint=FILE',
    ),
    'backbone of features': (
        'prepare.py', 'features', 'CONFIG', '--folder', RUN, '--cfg-options', 'model.backbone.checkpoint=FILE',
    ),
    'k-means': ('analysis_tools/kmeans_baseline.py', 'CONFIG', '--cfg-options', 'model.backbone.checkpoint=FILE'),
    'cosines': ('analysis_tools/feature_cosines.py', 'CONFIG', '--cfg-options', 'model.backbone.checkpoint=FILE'),
    'stego2omh': ('model_converters/stego2omh.py', 'FILE', f'{RUN}/out.pth'),
    'hp2omh': ('model_converters/hp2omh.py', 'FILE', f'{RUN}/out.pth'),
    'eagle2omh': ('model_converters/eagle2omh.py', 'FILE', f'{RUN}/out.pth'),
    'smooseg2omh': ('model_converters/smooseg2omh.py', 'FILE', f'{RUN}/out.pth'),
    'dino2mmpretrain': ('model_converters/dino2mmpretrain.py', 'FILE', f'{RUN}/out.pth'),
    'train of mmseg': (f'{TOOLS_OF_MMSEG}/train.py', 'CONFIG', '--work-dir', RUN, '--cfg-options', 'load_from=FILE'),
    'resume of mmseg': (f'{TOOLS_OF_MMSEG}/train.py', 'CONFIG', '--work-dir', RUN, '--resume'),
    'test of mmseg': (f'{TOOLS_OF_MMSEG}/test.py', 'CONFIG', 'FILE', '--work-dir', RUN),
}  # fmt: skip


def init_of_mmseg(config: str, file: str, image: str) -> None:
    from mmseg.apis import init_model

    init_model(config, file, device='cpu')


def inferencer_of_mmseg(config: str, file: str, image: str) -> None:
    from mmseg.apis import MMSegInferencer

    MMSegInferencer(config, file, device='cpu')


def init_of_ours(config: str, file: str, image: str) -> None:
    from omh_mmseg.apis import init_model

    init_model(config, file, device='cpu')


def inferencer_of_ours(config: str, file: str, image: str) -> None:
    from omh_mmseg.apis import SegmentationInferencer

    SegmentationInferencer(config, file, device='cpu')


APIS = dict(
    zip(
        ('init_model of mmseg', 'MMSegInferencer', 'init_model', 'SegmentationInferencer'),
        (init_of_mmseg, inferencer_of_mmseg, init_of_ours, inferencer_of_ours),
    )
)
REMEDIES = ('Use ', 'use ', 'Copy ', 'Set ', 'set ', 'Resume ', 'compare its size', 'allow it')
QUICK = (
    ('load_from', 'meta_zip'), ('resume', 'optimizer_plain'), ('test', 'empty_state'), ('test', 'a_list'),
    ('predict', 'nan'), ('resume', 'truncated'), ('k-means', 'random'), ('test of mmseg', 'no_state'),
    ('resume of mmseg', 'message_hub_legacy'), ('init_model of mmseg', 'a_part'), ('MMSegInferencer', 'renamed'),
)  # fmt: skip
ALL = [f'{place}_{form}' for place in PLACES for form in FORMS] + list(BROKEN)
STARTS_FROM_A_HOST = ('load_from', 'features', 'train of mmseg')


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('LOCAL_RANK', '0')
    monkeypatch.delenv('OMH_TRUST', raising=False)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    # Asking compilers for their versions takes most of the time of a runner that is refused.
    monkeypatch.setattr(mmengine.runner.runner, 'collect_env', dict)
    yield
    DefaultScope._instance_dict.clear()


def said_by(case: SimpleNamespace, name: str, file: Path, work_dir: Path) -> str:
    """What a command or an API says of a file: the one line with which it ends."""
    work_dir.mkdir()
    if name in APIS:
        with pytest.raises(ValueError) as error:
            APIS[name](str(case.config), str(file), str(case.image))
        return str(error.value)
    if name.startswith('resume') and 'from' not in name:
        file = Path(shutil.copy(file, work_dir))
        (work_dir / 'last_checkpoint').write_text(str(file))
    (work_dir / 'config.py').write_text('# of the run before\n')
    good = case.files / 'good.pth'
    if not good.is_file():
        save(case.honest, good)
    values = dict(CONFIG=case.config, FILE=file, IMAGE=case.image, WORK_DIR=work_dir, GOOD=good)
    words = list(COMMANDS[name])
    for key, value in values.items():
        words = [word.replace(key, str(value)) for word in words]
    before = {path.name for path in work_dir.iterdir()}
    with pytest.MonkeyPatch.context() as patch, open(os.devnull, 'w') as null, contextlib.redirect_stdout(null):
        patch.setattr(sys, 'argv', words)
        expected = ValueError if 'mmseg' in name else SystemExit
        with pytest.raises(expected) as error:
            runpy.run_path(str(TOOLS / words[0]), run_name='__main__')
    assert (work_dir / 'config.py').read_text() == '# of the run before\n'
    made = {path.name for path in work_dir.iterdir() if not path.is_dir()} - before - {LOCK, NOTE}
    assert made == set(), f'{name} wrote {made}'
    if expected is ValueError:
        return str(error.value)
    text = error.value.code
    assert isinstance(text, str), f'{name} ended with status {text}'
    return text


def check(case: SimpleNamespace, name: str, kind: str, work_dir: Path) -> None:
    place, _, form = kind.rpartition('_')
    file = poisoned(case, place, form) if place in PLACES else broken(case, kind)
    text = said_by(case, name, file, work_dir)
    assert not case.trace.exists(), f'{name} ran the code of {kind}'
    assert '\n' not in text and file.name in text, text
    # Converters say which files they are for.
    assert name.endswith(('2omh', '2mmpretrain')) or any(word in text for word in REMEDIES), text


@pytest.mark.parametrize(('name', 'kind'), QUICK)
def test_checkpoints_are_refused_in_one_line(case, tmp_path, name, kind):
    check(case, name, kind, tmp_path / 'run')


@pytest.mark.slow
@pytest.mark.parametrize('name', [*COMMANDS, *APIS])
def test_no_command_runs_code_or_takes_what_is_broken(case, tmp_path, name):
    wrong = []
    for kind in ALL:
        if (kind == 'a_part' and name in STARTS_FROM_A_HOST) or leaves_it_to_others(name, kind):
            continue
        try:
            check(case, name, kind, tmp_path / kind)
        except (Exception, pytest.fail.Exception) as error:
            wrong.append(f'{kind}: {type(error).__name__}: {str(error)[:300]}')
        assert not case.trace.exists(), f'{name} ran the code of {kind}'
    assert not wrong, '\n'.join(wrong)


def leaves_it_to_others(name: str, kind: str) -> bool:
    """A backbone is read from ``backbone.*`` alone, the plans from OMH's centres."""
    if name in ('k-means', 'cosines') or name.startswith('backbone'):
        return kind in ('a_part', 'other_classes', 'no_meta')
    if name == 'plans':
        return kind in ('other_classes', 'no_meta')
    return False
