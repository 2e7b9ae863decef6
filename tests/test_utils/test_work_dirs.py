from __future__ import annotations

from pathlib import Path

import pytest

from omh_mmseg.commands.options import RunParser, add_run_arguments
from omh_mmseg.utils.work_dirs import (
    checkpoint_file,
    config_file,
    resolve_run,
    resolve_runs,
)

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / 'my_run'
    (folder / '20260101_000000' / 'vis_data').mkdir(parents=True)
    (folder / '20260101_000000' / 'vis_data' / 'config.py').touch()
    for name in ('mine.py', 'iter_2.pth', 'iter_4.pth'):
        (folder / name).touch()
    (folder / 'last_checkpoint').write_text(f'{folder}/iter_4.pth\n')
    return folder


def test_a_work_directory_in_place_of_both_or_of_either(work):
    config, newest, older = str(work / 'mine.py'), str(work / 'iter_4.pth'), str(work / 'iter_2.pth')
    assert resolve_run(str(work), None) == (config, newest)
    assert resolve_run(work, older) == (config, older)
    assert resolve_run('other.py', str(work)) == ('other.py', newest)
    assert resolve_run('other.py', 'https://host/a.pth') == ('other.py', 'https://host/a.pth')
    assert resolve_runs(str(work), []) == (config, [newest])
    assert resolve_runs(str(work), [str(work), str(work)]) == (config, [newest] * 3)
    assert resolve_runs(str(work), [older, newest]) == (config, [older, newest])
    assert resolve_runs('other.py', [str(work), older]) == ('other.py', [newest, older])


def test_a_config_alone_and_nothing(work):
    for resolve in (lambda path: resolve_run(path, None), lambda path: resolve_runs(path, [])):
        with pytest.raises(ValueError, match='mine.py is a config file: give a checkpoint after it, or the work dir'):
            resolve(str(work / 'mine.py'))
        with pytest.raises(FileNotFoundError, match=r'no config file or work directory work_dirs/nun \(looked from'):
            resolve('work_dirs/nun')


def test_names_of_shipped_configs(work, monkeypatch):
    """Unless there is a file or work directory of that name."""
    name, shipped = 'stego_vit-t8_demo', str(REPOSITORY / 'configs' / 'stego_vit-t8_demo.py')
    monkeypatch.chdir(work)
    assert config_file(name) == config_file(f'{name}.py') == shipped
    assert resolve_run(name, 'iter_2.pth') == (shipped, 'iter_2.pth')
    weights = str(REPOSITORY / 'omh_mmseg' / 'assets' / 'checkpoints' / f'{name}.pth')
    assert resolve_run(name, None) == (shipped, weights) and resolve_runs(name, []) == (shipped, [weights])
    assert resolve_runs(name, [str(work), str(work)])[1] == [str(work / 'iter_4.pth')] * 2
    with pytest.raises(ValueError, match='stego_vit-s8_coco is a config file: give a .*shipped for stego_vit-t8'):
        resolve_run('stego_vit-s8_coco', None)
    with pytest.raises(FileNotFoundError, match='did you mean stego_vit-t8_demo or'):
        resolve_run('stego_vit-t8_dmo', None)
    (work / f'{name}.py').touch()
    assert config_file(f'{name}.py') == f'{name}.py'


def test_configs_of_a_directory(work):
    (work / 'other.py').touch()
    with pytest.raises(ValueError, match='my_run holds several config files, mine.py, other.py: give one of them'):
        config_file(work)
    for name in ('mine.py', 'other.py'):
        (work / name).unlink()
    with pytest.raises(FileNotFoundError, match='my_run is not the work directory of a run: it holds no config'):
        config_file(work)


def test_a_moved_directory_has_its_own_checkpoint(work):
    (work / 'last_checkpoint').write_text('/nowhere/my_run/iter_2.pth')
    assert checkpoint_file(work) == str(work / 'iter_2.pth')


@pytest.mark.parametrize(('noted', 'named'), [('/nowhere/iter_6.pth', '/nowhere/iter_6.pth'), ('', 'nothing')])
def test_a_stale_note(work, noted, named):
    (work / 'last_checkpoint').write_text(noted)
    with pytest.raises(FileNotFoundError, match=f'last_checkpoint names {named}, and .*; it holds iter_2.pth, iter_4'):
        checkpoint_file(work)
    for name in ('iter_2.pth', 'iter_4.pth'):
        (work / name).unlink()
    with pytest.raises(FileNotFoundError, match='it holds no .pth file'):
        checkpoint_file(work)


def test_without_a_note(work):
    (work / 'last_checkpoint').unlink()
    with pytest.raises(ValueError, match='several checkpoints and no last_checkpoint .*iter_2.pth, iter_4.pth'):
        checkpoint_file(work)
    (work / 'iter_2.pth').unlink()
    assert checkpoint_file(work) == str(work / 'iter_4.pth')
    (work / 'iter_4.pth').unlink()
    with pytest.raises(FileNotFoundError, match='holds no checkpoint: neither last_checkpoint nor a .pth file'):
        checkpoint_file(work)


@pytest.mark.parametrize('words', ['c a --x 1', 'c --x 1 a', '--x 1 c a'])
def test_options_stand_anywhere(words):
    parser = RunParser()
    add_run_arguments(parser)
    parser.add_argument('--x')
    args = parser.parse_args(words.split())
    assert (args.config, args.checkpoint, args.x) == ('c', 'a', '1')


@pytest.mark.parametrize('words', ['do c a b --x 1', 'do c --x 1 a b', 'do --x 1 c a b'])
def test_options_of_commands_stand_anywhere(words):
    parser = RunParser.__mro__[1]()
    commands = parser.add_subparsers(parser_class=RunParser)
    command = commands.add_parser('do')
    add_run_arguments(command, several=True)
    command.add_argument('--x')
    args = parser.parse_args(words.split())
    assert (args.config, args.checkpoints, args.x) == ('c', ['a', 'b'], '1')
