"""Configs and commands have the names under which this user finds them, in a checkout and in an installed package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

import omh_mmseg
from omh_mmseg import launchers, shipped, stack
from omh_mmseg.shipped import command_line, config_path, install_extra, name_commands, shipped_config
from omh_mmseg.study.schedule_reader import read_schedule

REPOSITORY = Path(__file__).resolve().parents[1]
DEMO = 'omh_stego_vit-t8_demo'


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package as if it lay in site-packages, beside somebody else's folder ``tools``."""
    package = tmp_path / 'site-packages' / 'omh_mmseg'
    shutil.copytree(REPOSITORY / 'configs', package / '.mim' / 'configs')
    shutil.copytree(REPOSITORY / 'tools', package / '.mim' / 'tools')
    (package.parent / 'tools').mkdir()
    monkeypatch.setattr(shipped, 'PACKAGE', package)
    monkeypatch.chdir(tmp_path)
    return package


def test_commands_of_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert command_line('analysis_tools/hierarchy.py') == 'python tools/analysis_tools/hierarchy.py'
    assert command_line('dist_train.sh') == 'tools/dist_train.sh'
    assert name_commands('python tools/train.py configs/a.py') == 'python tools/train.py configs/a.py'
    monkeypatch.chdir(tmp_path)
    assert command_line('prepare.py') == f'python {REPOSITORY / "tools" / "prepare.py"}'
    assert install_extra('study') == f"pip install '{REPOSITORY}[study]'"
    monkeypatch.setattr('sys.argv', ['/somewhere/bin/omh-train', 'config.py'])
    assert command_line('prepare.py') == 'omh-prepare'


def test_commands_of_an_installed_package(installed: Path) -> None:
    assert command_line('prepare.py') == 'omh-prepare' and install_extra('study') == "pip install 'omh-mmseg[study]'"
    module = 'omh_mmseg.commands.analysis_tools.hierarchy'
    assert command_line('analysis_tools/hierarchy.py') == f'python -m {module}'
    assert callable(import_module(module).main)
    assert command_line('dist_train.sh') == 'site-packages/omh_mmseg/.mim/tools/dist_train.sh'
    assert name_commands('python tools/train.py configs/a.py, tools/test.py') == 'omh-train a.py, omh-test'


def test_messages_of_an_installed_package(installed: Path) -> None:
    text = str(stack.StackError('x'))
    assert "pip install 'omh-mmseg[onedl]'" in text and 'requirements' not in text
    assert 'omh-train CONFIG --launcher mpi' in launchers.how_to_start('mpi')
    assert 'site-packages/omh_mmseg/.mim/tools/slurm_test.sh' in launchers.how_to_start('slurm')


def test_listed_configs() -> None:
    names = omh_mmseg.list_configs()
    assert DEMO in names and 'default_runtime' not in names and names == sorted(names)
    hosts = ('eagle', 'hp', 'primaps', 'smooseg', 'stego')
    assert omh_mmseg.list_configs('omh_*_demo') == [f'omh_{host}_vit-t8_demo' for host in hosts]
    assert all(Path(config_path(name)).is_file() for name in names)


@pytest.mark.parametrize('name', [DEMO, f'{DEMO}.py'])
def test_paths_of_configs(installed: Path, name: str) -> None:
    assert config_path(name) == f'site-packages/omh_mmseg/.mim/configs/{DEMO}.py'
    with pytest.raises(FileNotFoundError, match=f'no config omh_stego_vit-t8; did you mean .*{DEMO}'):
        config_path('omh_stego_vit-t8')


def test_schedules_have_names(installed: Path) -> None:
    from omh_mmseg.commands.analysis_tools import sweep

    assert shipped.shipped_schedule('refit') == 'site-packages/omh_mmseg/.mim/configs/study/refit.py'
    assert shipped.shipped_schedule('none') is None and shipped.shipped_schedule('configs/study/refit.py') is None
    assert 'omh_mmseg.commands.analysis_tools.sweep weights.py --work-dir' in sweep.build_parser().format_help()
    assert read_schedule('weights.py').runs
    (installed.parents[1] / 'refit.py').touch()
    assert shipped.shipped_schedule('refit.py') is None


def test_models_of_the_hub() -> None:
    """With the weights of the metafile; in a process of its own, whose first import is that of the README."""
    code = (
        'import omh_mmseg, mmengine.hub, torch; '
        f"model = mmengine.hub.get_model('omh_mmseg::{DEMO}.py', pretrained=True); "
        'state = torch.load(omh_mmseg.checkpoint_path(), weights_only=True)["state_dict"]; '
        'assert torch.equal(model.cluster_probe.centres, state["cluster_probe.centres"])'
    )
    subprocess.run([sys.executable, '-c', code], check=True, cwd=REPOSITORY, capture_output=True)


def test_names_in_place_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file or work directory of that name is meant before a shipped config; a folder is never guessed."""
    monkeypatch.chdir(tmp_path)
    assert shipped_config(DEMO) == str(REPOSITORY / 'configs' / f'{DEMO}.py')
    assert shipped_config(f'configs/{DEMO}.py') is None and shipped_config('other') is None
    (tmp_path / DEMO).mkdir()
    assert shipped_config(DEMO) is None


def test_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = (REPOSITORY / 'pyproject.toml').read_text().split('[project.scripts]')[1].split('\n\n')[0].split()
    assert scripts == [
        word for name in shipped.ENTRY_POINTS for word in (f'omh-{name}', '=', f"'omh_mmseg.commands.{name}:main'")
    ]
    assert all(callable(import_module(f'omh_mmseg.commands.{name}').main) for name in shipped.ENTRY_POINTS)


@pytest.fixture
def started_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """What a training of a config that is not there says, by the name of its program."""
    from omh_mmseg.commands import train

    def run(program: str) -> str:
        monkeypatch.setattr('sys.argv', [program, 'absent.py'])
        with pytest.raises(SystemExit) as end:
            train.main()
        return str(end.value.code)

    return run


@pytest.mark.parametrize(('program', 'name'), [('/env/bin/omh-train', 'omh-train'), ('tools/train.py', 'train.py')])
def test_errors_name_the_program(started_as: Callable[[str], str], program: str, name: str) -> None:
    assert started_as(program).startswith(f'{name}: there is no config file absent.py')
