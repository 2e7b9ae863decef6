"""The workarounds do what their docstrings say, and the stack check names the remedy."""

from __future__ import annotations

import importlib.util
import io
import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.config.config import ConfigParsingError
from mmengine.hub import get_config, hub
from mmengine.infer import BaseInferencer
from mmengine.logging import HistoryBuffer
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from mmseg.registry import MODELS
from platformdirs import user_cache_dir
from torch import nn

from omh_mmseg import compat, stack

REPOSITORY = Path(__file__).resolve().parents[1]

BLOCK = """
import sys

class Block:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split('.')[0] in {blocked}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)

real = __import__('importlib.util').util.find_spec
import importlib.util
importlib.util.find_spec = lambda name, package=None: None if name.split('.')[0] in {blocked} else real(name, package)
sys.meta_path.insert(0, Block)
"""


def run_python(code: str, blocked: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh interpreter in which the ``blocked`` top-level modules are not installed."""
    return subprocess.run(
        [sys.executable, '-c', BLOCK.format(blocked=repr(blocked)) + code],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=600,
    )


def fake_distributions(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str]) -> None:
    known = {release.distribution for releases in stack.FAMILIES.values() for release in releases}
    real = metadata.version

    def version(name: str) -> str:
        if name in versions:
            return versions[name]
        if name in known:
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, 'version', version)


def supported(family: str, **changes: str) -> dict[str, str]:
    versions = {release.distribution: release.tested for release in stack.FAMILIES[family]}
    versions.update({name.replace('_', '-'): version for name, version in changes.items()})
    return versions


class TestStack:
    def test_installed_stack_passes(self) -> None:
        assert stack.check_stack() in stack.FAMILIES

    def test_transport_needs_no_mm_package(self) -> None:
        done = run_python(
            'import omh_mmseg.transport, omh_mmseg\n'
            "print(sorted({name.split('.')[0] for name in sys.modules} & {'mmengine', 'mmcv', 'mmseg', 'mmpretrain'}))",
            (*stack.STACK, 'cv2', 'torchvision'),
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip() == '[]'

    @pytest.mark.parametrize('statement', ['import omh_mmseg.models', 'from omh_mmseg import datasets'])
    def test_rooms_without_any_mm_package(self, statement: str) -> None:
        done = run_python(statement, stack.STACK)
        assert 'StackError' in done.stderr.splitlines()[-3]
        assert 'mmengine, mmcv, mmseg, mmpretrain cannot be imported\n' in done.stderr.replace('.\n', '\n')
        assert all(stack.install_command(family) in done.stderr for family in stack.FAMILIES)

    def test_one_mm_package_missing(self) -> None:
        """The transport does not mind, in either order; what needs them says which; users of mmseg are told."""
        done = run_python(
            'import warnings\n'
            'warnings.simplefilter("error")\n'
            'import mmengine, omh_mmseg.transport\n'
            'try:\n'
            '    import omh_mmseg.models\n'
            'except ImportError as error:\n'
            '    print(error)\n'
            'try:\n'
            '    import mmseg\n'
            'except UserWarning as warning:\n'
            '    print(warning)\n',
            ('mmpretrain',),
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.count('but mmpretrain cannot be imported (mmengine, mmcv, mmseg present)') == 2
        assert 'Configs of omh_mmseg do not work in this process' in done.stdout

    @pytest.mark.parametrize('tool', ['demo.py', 'train.py', 'analysis_tools/sweep.py'])
    def test_commands_without_any_mm_package(self, tool: str) -> None:
        words = {'train.py': ['c.py'], 'analysis_tools/sweep.py': ['--work-dir', 'x', '--runs', 'x']}.get(tool, [])
        path = str(REPOSITORY / 'tools' / tool)
        done = run_python(
            f'import runpy; sys.argv = [{path!r}, *{words!r}]\nrunpy.run_path({path!r}, run_name="__main__")',
            stack.STACK,
        )
        first, second, third = done.stderr.splitlines()
        assert first.startswith(f'{Path(tool).name}: omh_mmseg needs MMEngine') and 'pip install' in second + third

    def test_everything_is_registered_once(self) -> None:
        """Also where the first import is of a module in the middle; this process began with an mm package."""
        done = run_python(
            'import omh_mmseg.models.segmentors.stego as stego\n'
            'from mmseg.registry import HOOKS, MODELS\n'
            'import mmengine, omh_mmseg\n'
            'assert MODELS.get("STEGO") is stego.STEGO is omh_mmseg.models.segmentors.STEGO\n'
            'assert HOOKS.get("ProtocolHook") and mmengine.__spec__.loader.name == "mmengine"\n'
            'assert stego.__spec__.loader.name == stego.__name__\n'
            'assert not any(type(finder).__name__ == "StackFinder" for finder in sys.meta_path)'
        )
        assert done.returncode == 0, done.stderr

    def test_both_families(self, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_distributions(monkeypatch, {**supported('onedl'), 'mmengine': '0.10.7'})
        with pytest.raises(stack.StackError, match='both families.*onedl-mmengine 0.10.12.*mmengine 0.10.7') as caught:
            stack.check_stack()
        assert 'pip uninstall -y' in str(caught.value)

    @pytest.mark.parametrize(
        ('family', 'name', 'version'),
        [('onedl', 'onedl-mmengine', '0.10.7'), ('onedl', 'onedl-mmsegmentation', '2.0.0'),
         ('openmmlab', 'mmcv-lite', '2.2.0')],
    )
    def test_unsupported_version(
        self, monkeypatch: pytest.MonkeyPatch, family: str, name: str, version: str
    ) -> None:
        fake_distributions(monkeypatch, {**supported(family), name: version})
        with pytest.raises(stack.StackError, match=f'{name} {version} is installed where >='):
            stack.check_stack()

    @pytest.mark.parametrize('family', ['onedl', 'openmmlab'])
    def test_tested_versions_pass(self, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
        fake_distributions(monkeypatch, supported(family))
        assert stack.check_stack() == family

    def test_opencv_without_system_libraries(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def import_module(name: str) -> ModuleType:
            raise ImportError('libGL.so.1: cannot open shared object file: No such file or directory')

        monkeypatch.setattr(stack, 'import_module', import_module)
        with pytest.raises(stack.StackError, match=r'libGL.so.1.*(?s:.*)libgl1'):
            stack.check_opencv()


class TestStackFinder:
    """The import hook, with packages of the test's own in place of the mm packages and the library."""

    @pytest.fixture
    def toys(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
        """``toy_mm`` and ``toy_mm.inner`` note that they run, and are imported nowhere afterwards."""
        for name in ('toy_mm', 'toy_mm/inner'):
            (tmp_path / name).mkdir()
            (tmp_path / name / '__init__.py').write_text(f'import builtins\nbuiltins.toys.append({name!r})\n')
        ran: list[str] = []
        monkeypatch.setattr('builtins.toys', ran, raising=False)
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setattr(stack, 'STACK', ('toy_mm',))
        monkeypatch.setattr(sys, 'meta_path', list(sys.meta_path))
        for name in ('toy_mm', 'toy_mm.inner'):
            monkeypatch.delitem(sys.modules, name, raising=False)
        yield ran
        for name in ('toy_mm', 'toy_mm.inner'):
            sys.modules.pop(name, None)

    def test_loads_before_the_import_and_runs_nothing_twice(self, toys: list[str]) -> None:
        def load() -> None:
            toys.append('load')
            importlib.import_module('toy_mm.inner')

        stack.load_when_needed(load)
        assert importlib.util.find_spec('toy_mm') is not None and not toys
        module = importlib.import_module('toy_mm')
        assert toys == ['load', 'toy_mm', 'toy_mm/inner'] and module is sys.modules['toy_mm']
        assert module.__spec__.loader.name == 'toy_mm'
        importlib.import_module('toy_mm.inner')
        assert len(toys) == 3

    def test_loads_at_once_beside_an_mm_package(self, toys: list[str]) -> None:
        importlib.import_module('toy_mm')
        stack.load_when_needed(lambda: toys.append('load'))
        assert toys == ['toy_mm', 'load']

    def test_an_incomplete_stack_leaves_mm_packages_to_others(self, toys: list[str]) -> None:
        def load() -> None:
            toys.append('load')
            raise stack.StackError('mmseg is missing')

        sys.modules.pop('omh_mmseg.study.source_state', None)
        stack.load_when_needed(load)
        module = importlib.import_module('toy_mm')
        assert toys == ['load', 'toy_mm'] and module.__spec__.loader.name == 'toy_mm'
        with pytest.raises(stack.StackError, match='mmseg is missing'):
            importlib.import_module('omh_mmseg.study.source_state')


class TestConfigsByName:
    """What others look configs up by finds ours."""

    NAME = 'omh_smooseg_vit-t8_demo'

    def test_hub(self) -> None:
        config = get_config(f'omh_mmseg::{self.NAME}.py')
        assert config.model.type == 'SmooSeg' and config.model.omh_head.type == 'OMHHead'
        # Names of others are split as before. To read one would have mmengine install what it does not find.
        assert hub._get_package_and_cfg_path('mmseg::fcn/x.py') == ('mmsegmentation', 'fcn/x.py')

    def test_base(self, tmp_path: Path) -> None:
        (tmp_path / 'mine.py').write_text(f"_base_ = 'omh_mmseg::{self.NAME}.py'\nmodel = dict(num_classes=9)\n")
        config = Config.fromfile(tmp_path / 'mine.py')
        assert config.model.type == 'SmooSeg' and config.model.num_classes == 9
        (tmp_path / 'mine.py').write_text("_base_ = 'omh_mmseg::absent.py'\n")
        with pytest.raises((FileNotFoundError, ConfigParsingError)):
            Config.fromfile(tmp_path / 'mine.py')

    def test_inferencer(self) -> None:
        """Also in its own scope; names of mmseg's models, and wrong ones, are mmseg's affair."""
        load = BaseInferencer._load_model_from_metafile
        for scope in ('mmseg', 'omh_mmseg'):
            config, weights = load(SimpleNamespace(scope=scope), self.NAME)
            assert config.model.type == 'SmooSeg' and weights is None
        theirs, weights = load(SimpleNamespace(scope='mmseg'), 'fcn_r50-d8_4xb2-40k_cityscapes-512x1024')
        assert theirs.model.type == 'EncoderDecoder' and weights.endswith('.pth')
        with pytest.raises(ValueError, match='Cannot find model: absent in mmseg'):
            load(SimpleNamespace(scope='mmseg'), 'absent')

    def test_scope(self) -> None:
        """Registries of a package that mmengine knows say where its modules are."""
        assert MODELS.get('omh_mmseg.STEGO') is MODELS.get('STEGO')
        assert MODELS.children['omh_mmseg']._locations == ['omh_mmseg']


class TestTorchvision:
    def test_inert_where_it_imports(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compat.imports, 'import_module', lambda name: ModuleType(name))
        assert compat.repair_torchvision.__wrapped__() is None

    def test_inert_where_absent(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def import_module(name: str) -> ModuleType:
            raise ModuleNotFoundError('No module named torchvision', name='torchvision')

        monkeypatch.setattr(compat.imports, 'import_module', import_module)
        assert compat.repair_torchvision.__wrapped__() is None

    def test_other_errors_pass(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def import_module(name: str) -> ModuleType:
            raise RuntimeError('operator torchvision::roi_align does not exist')

        monkeypatch.setattr(compat.imports, 'import_module', import_module)
        with pytest.raises(RuntimeError, match='roi_align'):
            compat.repair_torchvision.__wrapped__()

    def test_detection_utilities_import(self) -> None:
        from torchvision.ops import boxes

        assert hasattr(torch.ops.torchvision, 'nms') and boxes.box_area(torch.tensor([[0.0, 0, 2, 3]])).item() == 6


class TestCheckpoints:
    @pytest.mark.parametrize('dtype', [np.int64, np.float64, np.float32, np.uint8, np.bool_])
    def test_history_loads_weights_only(self, tmp_path: Path, dtype: type) -> None:
        buffer = HistoryBuffer(log_history=[dtype(1)], count_history=[1])
        torch.save({'history': buffer, 'last': dtype(1), 'weight': torch.ones(2)}, tmp_path / 'a.pth')
        loaded = torch.load(tmp_path / 'a.pth', weights_only=True)
        assert loaded['history'].current() == 1 and loaded['last'] == 1
        assert loaded['history'].statistics('mean') == 1

    def test_mmengine_loads_without_warning(self, tmp_path: Path) -> None:
        from mmengine.runner.checkpoint import CheckpointLoader

        path = tmp_path / 'a.pth'
        history = HistoryBuffer(log_history=[np.float32(1)], count_history=[1])
        torch.save({'message_hub': {'log_scalars': {'loss': history}}, 'loss': np.float32(2)}, path)
        for _ in range(2):  # the fork forgets what it allowed itself after the first load
            with warnings.catch_warnings(), redirect_stdout(io.StringIO()) as output:
                warnings.simplefilter('error')
                CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
            assert 'WARNING' not in output.getvalue()
        assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == []

    def test_harmful_attribute_is_refused(self, tmp_path: Path) -> None:
        class Harmful:
            def __reduce__(self) -> tuple[object, tuple[object, str]]:
                return getattr, (HistoryBuffer, '__init__')

        torch.save({'harmful': Harmful()}, tmp_path / 'a.pth')
        with pytest.raises((ValueError, pickle.UnpicklingError), match='only statistics of HistoryBuffer'):
            torch.load(tmp_path / 'a.pth', weights_only=True)


class TestImports:
    def test_stub_is_removed(self) -> None:
        with compat.compiled_operators_stub():
            stub = sys.modules['mmcv._ext']
            with pytest.raises(NotImplementedError, match='full mmcv'):
                stub.softnms(1)
            assert not hasattr(stub, '__file__')
        assert 'mmcv._ext' not in sys.modules

    def test_stub_is_removed_after_an_error(self) -> None:
        with pytest.raises(KeyError), compat.compiled_operators_stub():
            raise KeyError
        assert 'mmcv._ext' not in sys.modules

    def test_import_is_quiet(self) -> None:
        done = run_python('import omh_mmseg')
        assert done.returncode == 0, done.stderr
        assert (done.stdout, done.stderr) == ('', '')

    def test_only_the_known_notes_are_silenced(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.warns(UserWarning, match='something else'), compat.quiet_import():
            print('Could not import OneDL')
            print('kept')
            warnings.warn('Fail to import ``MultiScaleDeformableAttention`` from', stacklevel=1)
            warnings.warn('something else', stacklevel=1)
        assert capsys.readouterr().out == 'kept\n'

    def test_apply_twice(self) -> None:
        compat.apply()
        compat.apply()


def test_drop_probability_is_a_plain_float() -> None:
    from mmpretrain.models import VisionTransformer

    model = VisionTransformer(
        arch=dict(embed_dims=8, num_layers=2, num_heads=2, feedforward_channels=8), img_size=16, patch_size=8,
        out_type='featmap', drop_path_rate=0.1,
    )
    rate = model.layers[-1].ffn.dropout_layer.drop_prob
    assert type(rate) is float and rate == pytest.approx(0.1)


@pytest.mark.parametrize('bgr_to_rgb', [False, True])
def test_channel_conversion_has_one_name(bgr_to_rgb: bool) -> None:
    from mmseg.models import SegDataPreProcessor

    preprocessor = SegDataPreProcessor(mean=[0, 0, 0], std=[1, 1, 1], bgr_to_rgb=bgr_to_rgb, size=(4, 4))
    assert preprocessor._channel_conversion is bgr_to_rgb


@pytest.fixture
def scopes() -> Iterator[None]:
    yield
    DefaultScope._instance_dict.clear()


def _runner(work_dir: Path, **options: object) -> Runner:
    return Runner(
        nn.Linear(1, 1), str(work_dir), visualizer=dict(type='Visualizer', name='visualizer'), log_level='ERROR',
        experiment_name='same', **options,
    )  # fmt: skip


def test_runs_of_one_process_share_nothing(scopes, tmp_path, monkeypatch) -> None:
    """Two that begin in the same second, with one name and visualiser; a second directory or the same."""
    now = time.time()
    monkeypatch.setattr('mmengine.runner.runner.time.time', lambda: now)
    runners = [_runner(tmp_path / name) for name in ('a', 'b', 'b')]
    for part in ('logger', 'message_hub', 'visualizer', 'default_scope'):
        assert len({id(getattr(runner, part)) for runner in runners}) == 3, part
    assert len({runner.log_dir for runner in runners}) == 3
    assert all(runner.log_dir.startswith(str(runner.work_dir)) for runner in runners)
    assert Visualizer.get_current_instance() is runners[-1].visualizer


def test_a_run_leaves_no_settings_to_the_next(scopes, tmp_path) -> None:
    deterministic, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    cudnn = torch.backends.cudnn.deterministic
    try:
        _runner(tmp_path, randomness=dict(seed=1, deterministic=True))
        assert torch.are_deterministic_algorithms_enabled()
        _runner(tmp_path, randomness=dict(seed=1), env_cfg=dict(cudnn_benchmark=True, dist_cfg={}))
        assert not torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.deterministic
        assert torch.backends.cudnn.benchmark
        _runner(tmp_path, randomness=dict(seed=1))
        assert not torch.backends.cudnn.benchmark
        torch.use_deterministic_algorithms(True)  # by hand, which no run undoes
        _runner(tmp_path, randomness=dict(seed=1))
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = benchmark, cudnn


class TestWorkers:
    def test_they_end_with_the_run(self) -> None:
        """Else they live until Python collects the runner."""
        from mmengine.runner import Runner

        class Iterator:
            ended = 0

            def _shutdown_workers(self) -> None:
                self.ended += 1

        iterator = Iterator()
        loader = SimpleNamespace(_iterator=iterator)
        loop = SimpleNamespace(dataloader=loader, dataloader_iterator=SimpleNamespace(_iterator=iterator))
        runner = SimpleNamespace(_train_loop=loop, _val_loop=dict(type='ValLoop'), _test_loop=None, _hooks=[])
        Runner.call_hook(runner, 'after_train')
        assert iterator.ended == 0 and loader._iterator is iterator
        Runner.call_hook(runner, 'after_run')
        assert iterator.ended == 2 and loader._iterator is None and loop.dataloader_iterator._iterator is None


def test_configs_are_laid_out_past_a_torn_grammar(tmp_path: Path) -> None:
    """A second process reads yapf's grammar while the first one writes it, or after a kill of that one."""
    compat.import_yapf()
    folder = Path(user_cache_dir('YAPF', version=metadata.version('yapf')))
    whole = sorted(folder.glob('*.pickle'))
    torn = [tmp_path / 'YAPF' / folder.name / grammar.name for grammar in whole]
    assert len(whole) == 2
    torn[0].parent.mkdir(parents=True)
    for path, content in zip(torn, (b'', whole[1].read_bytes()[:100])):
        path.write_bytes(content)
    code = f"""
import os
os.environ['XDG_CACHE_HOME'] = {str(tmp_path)!r}
from omh_mmseg import compat
from mmengine.config import Config
compat.lay_out_configs_by_any_grammar()
print(Config(dict(a=1)).pretty_text)
"""
    result = run_python(code)
    assert result.stdout.strip() == 'a = 1', result.stderr
    assert [path.stat().st_size for path in torn] == [path.stat().st_size for path in whole]
