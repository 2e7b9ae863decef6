"""Every command in the pages is one that its parser takes, and every setting reaches something in a config.

Blocks of commands run in bash as they stand, with variables and loops, in an empty folder whose only programs write
down how they were called. Commands and settings inside sentences are taken one by one.
"""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import omh_mmseg
from omh_mmseg.shipped import ENTRY_POINTS

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted([*(REPOSITORY / 'docs').rglob('*.md'), REPOSITORY / 'README.md', REPOSITORY / 'CONTRIBUTING.md'])
PROGRAMS = ('python', 'torchrun', 'mpirun', 'pip', 'make', 'ln', 'git', 'pre-commit', 'mim', 'tensorboard',
            *(f'omh-{name}' for name in ENTRY_POINTS))  # fmt: skip
"""What a page may call; those that are not ours are not looked into."""
SCRIPTS = ('dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh')
CANDIDATES = (
    'omh_stego_mobilenet-v2_folder', 'omh_stego_vit-t8_demo', 'omh_hp_mobilenet-v2_folder',
    'omh_smooseg_mobilenet-v2_folder', 'omh_eagle_mobilenet-v2_folder', 'omh_primaps_mobilenet-v2_folder',
    'omh_stego_vit-s8_coco', 'omh_stego_vit-s8_potsdam',
)  # fmt: skip
"""Configs that a setting may be of where a page names none."""
BELOW = (
    '', 'model.', 'model.omh_head.', 'model.backbone.', 'model.backbone.backbone.', 'default_hooks.temporal_pairs.',
)  # fmt: skip
"""Where a sentence's setting may stand, which has named the part before."""
ELLIPSIS = re.compile(r'\.\.\.|…')
WRONG_ON_PURPOSE = {'docs/data.md': ('model.decode_head.chanels=90', 'randomness.sed=1')}
"""Settings that pages show as mistakes."""
SETTING = re.compile(r'[a-z_]\w*(?:\.\w+)*=\S.*')
COMMAND = re.compile(r'(?:python )?(?:tools/)?(?:analysis_tools/|model_converters/)?(\w+)\.py (?=\S)|omh-\w+ (?=\S)')


class Wrong(Exception):
    """A command that its parser refuses."""


class Command(NamedTuple):
    """How a page calls a program, and whether the rest of its arguments may be missing."""

    words: tuple[str, ...]
    part: bool = False


@cache
def text_of(page: Path) -> str:
    return page.read_text()


def blocks(text: str) -> Iterator[str]:
    """Fenced blocks of bash, and indented ones that call a program of ours."""
    yield from re.findall(r'^```(?:bash|sh|console)\n(.*?)^```', text, re.S | re.M)
    text = re.sub(r'^[ \t]*```.*?^[ \t]*```', '', text, flags=re.S | re.M)
    for block in re.findall(r'(?:(?<=\n\n)|\A)((?:(?: {4}|\t).*\n|\n(?=(?: {4}|\t)))+)', text + '\n'):
        if re.match(r'\s*[\w.]+: ', block):  # a message
            continue
        if re.search(r'\b(?:python \S+\.py|tools/\w+\.sh|omh-\w+|make \w+|pip install)', block):
            yield block


def inline(text: str) -> Iterator[Command]:
    """Commands and settings of sentences."""
    text = re.sub(r'^[ \t]*```.*?^[ \t]*```', '', text, flags=re.S | re.M)
    for line in re.findall(r'^ {4}(--cfg-options .*)', text, re.M):
        yield Command(('settings', *shlex.split(line)[1:]))
    text = '\n'.join(line for line in text.splitlines() if not line.startswith('    '))
    for code in re.findall(r'(?<!`)`([^`]+)`(?!`)', text):
        code = ' '.join(code.split())
        if ELLIPSIS.search(code) or re.search(r'<\w+>|\$', code):
            continue
        if COMMAND.match(code) or code.startswith(('make ', 'pip install ', 'python ')):
            try:
                yield Command(tuple(shlex.split(code)), part=True)
            except ValueError as error:
                raise Wrong(f'{code}: {error}') from error
        elif code.startswith('--cfg-options ') or (SETTING.fullmatch(code) and '.' in code.partition('=')[0]):
            part = not code.startswith('--')
            yield Command(('settings', *shlex.split(code.removeprefix('--cfg-options '))), part)


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with stand-ins for all programs."""
    folder = tmp_path_factory.mktemp('page')
    (folder / 'bin').mkdir()
    (folder / 'tools').mkdir()
    names = {f'bin/{name}': name for name in PROGRAMS}
    (folder / 'omh_mmseg').symlink_to(folder)  # of `git clone`
    names |= {f'tools/{name}': f'tools/{name}' for name in SCRIPTS}
    for path, name in names.items():
        (folder / path).write_text(f'#!/bin/bash\nprintf -v line "%q " {shlex.quote(name)} "$@"\necho "$line" >> '
                                   f'{shlex.quote(str(folder / "called"))}\n')
        (folder / path).chmod(0o755)
    (folder / '.venv').symlink_to(folder)  # .venv/bin/python
    (folder / 'bin' / 'seq').symlink_to(shutil.which('seq') or '/usr/bin/seq')
    return folder


def called(folder: Path, block: str) -> list[Command]:
    """What a block calls.

    Raises:
        Wrong: It calls what the page has no right to assume.
    """
    log = folder / 'called'
    log.unlink(missing_ok=True)
    text = re.sub(r'(?:&& )?\. \S+/activate\b', '', block)
    done = subprocess.run(
        ['bash', '--noprofile', '--norc', '-c', text], cwd=folder, text=True, capture_output=True,
        env=dict(PATH=str(folder / 'bin'), HOME=str(folder)), executable=shutil.which('bash'), timeout=60,
    )  # fmt: skip
    if done.stderr:
        raise Wrong(f'{done.stderr.strip()}, in\n{block}')
    lines = log.read_text().splitlines() if log.exists() else []
    return [Command(tuple(shlex.split(line))) for line in lines]


@cache
def parser_of(tool: str) -> argparse.ArgumentParser:
    """That of a file below ``tools``, by its name without ending."""
    module = 'omh_mmseg.commands.' + tool.replace('/', '.')
    try:
        return importlib.import_module(module).build_parser()
    except ModuleNotFoundError as error:
        raise Wrong(f'there is no tools/{tool}.py') from error


class _Parsed(BaseException):
    """What a script's own parser has read."""


def parse_script(path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a script that is no command of the package read its arguments, and nothing else."""

    def parse(self: argparse.ArgumentParser, *given: Any, **named: Any) -> None:
        argparse.ArgumentParser.parse_known_args(self, words)
        _, more = argparse.ArgumentParser.parse_known_args(self, words)
        if more:
            raise Wrong(f'{path.name} takes no {" ".join(more)}')
        raise _Parsed

    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, 'parse_args', parse)
        patch.setattr(sys, 'argv', [str(path), *words])
        patch.syspath_prepend(path.parent)
        before = set(sys.modules)
        spec = importlib.util.spec_from_file_location(f'page_{path.stem.replace("-", "_")}', path)
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, module)
        try:
            spec.loader.exec_module(module)
            module.main()
        except _Parsed:
            return
        except SystemExit as end:
            if end.code:
                raise
            return  # --help
        finally:
            for name in set(sys.modules) - before:
                if getattr(sys.modules[name], '__file__', None) and str(path.parent) in str(sys.modules[name].__file__):
                    del sys.modules[name]
    raise Wrong(f'{path.name} reads no arguments')


def refuse(self: argparse.ArgumentParser, message: str) -> None:
    raise Wrong(message)


def options_of(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """The options that are named exist, in the parser or the command of it that is named."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            named = [word for word in words if word in action.choices]
            if named:
                return options_of(action.choices[named[0]], words)
    for word in words:
        name = word.partition('=')[0]
        if word.startswith('--') and name not in parser._option_string_actions:
            raise Wrong(f'{parser.prog} has no option {name}')
    return None


def check_tool(tool: str, words: list[str], part: bool) -> None:
    """Parse, and look at the settings."""
    parser = parser_of(tool)
    try:
        args = parser.parse_args(words)
    except Wrong as error:
        if part and re.search(r'required|expected|arguments are required', str(error)):
            options_of(parser, words)
            return
        raise Wrong(f'{tool}.py {shlex.join(words)}: {error}') from error
    except argparse.ArgumentTypeError as error:
        raise Wrong(str(error)) from error
    if tool == 'analysis_tools/sweep':
        check_sweep(args)
    elif getattr(args, 'cfg_options', None):
        check_settings(getattr(args, 'config', None), dict(args.cfg_options))


def check_settings(config: str | None, options: dict[str, Any], below: tuple[str, ...] = ('',)) -> None:
    """Settings reach something: in the config that is named, or in one of the candidates where it is a placeholder."""
    from omh_mmseg.utils.config import read_config

    name = Path(config or '').name.removesuffix('.py')
    known = [name] if name in omh_mmseg.list_configs() else list(CANDIDATES)
    if config and '/' in config and config.startswith('configs/') and name not in omh_mmseg.list_configs():
        raise Wrong(f'there is no {config}')
    first: Exception | None = None
    for one, start in ((one, start) for start in below for one in known):
        try:
            read_config(omh_mmseg.config_path(one), {f'{start}{key}': value for key, value in options.items()})
            return
        except (ValueError, FileNotFoundError) as error:
            first = first or error
    raise Wrong(f'settings of {config or "a config"}: {first}')


def check_sweep(args: argparse.Namespace) -> None:
    """Every config of a sweep is there, and the settings reach something in each; schedules have tests of their own."""
    from omh_mmseg.commands.analysis_tools.sweep import read_arguments
    from omh_mmseg.study.job import SweepJob, job_config

    if args.schedule and args.schedule == args.schedule.upper():  # a placeholder
        return
    schedule = read_arguments(args)
    files: dict[str, Any] = {}
    for run in {(run.config, run.backbone): run for run in schedule.runs}.values():
        if run.config:
            job_config(SweepJob(run, 0, 'folder', dict(args.cfg_options or {})), files)


def check_make(words: list[str], monkeypatch: pytest.MonkeyPatch, part: bool) -> None:
    """Targets exist; ARGS of pytest, and of scripts, are those of their parsers."""
    makefile = (REPOSITORY / 'Makefile').read_text()
    for word in words:
        if '=' not in word and not re.search(rf'^{re.escape(word)}:', makefile, re.M):
            raise Wrong(f'the Makefile has no target {word}')
    given = [word.removeprefix('ARGS=') for word in words if word.startswith('ARGS=')]
    recipe = re.search(rf'^{re.escape(words[0])}: .*\n\t.*\$\(PY\) (\S+\.py) \$\(ARGS\)', makefile, re.M)
    if given and recipe:
        check(Command(('python', recipe[1], *shlex.split(given[0])), part), monkeypatch)


def check_pip(words: list[str]) -> None:
    """Requirement files and extras exist."""
    project = (REPOSITORY / 'pyproject.toml').read_text()
    for before, word in zip(['', *words], words):
        if before == '-r' and not (REPOSITORY / word).is_file():
            raise Wrong(f'there is no {word}')
        extra = re.fullmatch(r'(?:omh-mmseg|\.)\[([\w,]+)\]', word)
        for name in extra[1].split(',') if extra else ():
            if not re.search(rf'^{name} = \[', project, re.M):
                raise Wrong(f'there is no extra {name}')


def check(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raises Wrong for what the program called would refuse."""
    program, *words = command.words
    if program == 'settings':
        namespace = argparse.Namespace()
        parser = argparse.ArgumentParser()
        from omh_mmseg.utils.settings import Settings

        parser.add_argument('--cfg-options', nargs='+', action=Settings)
        parser.parse_args(['--cfg-options', *words], namespace)
        return check_settings(None, dict(namespace.cfg_options), BELOW if command.part else ('',))
    if program == 'make':
        return check_make(words, monkeypatch, command.part)
    if program in ('pip', 'pip3'):
        return check_pip(words)
    if program in ('torchrun', 'mpirun'):
        place = next(number for number, word in enumerate(words) if word.endswith('.py'))
        return check(Command(('python', *words[place:]), command.part), monkeypatch)
    if program.startswith('omh-'):
        return check_tool(program.removeprefix('omh-'), words, command.part)
    if program.startswith('tools/') and program.endswith('.sh'):
        name = program.removeprefix('tools/')
        skipped = words[2:] if name.startswith('slurm') else words
        count = {'dist_train.sh': 1, 'dist_test.sh': 2}.get(name)
        skipped = [word for number, word in enumerate(skipped) if number != count]
        return check_tool('train' if 'train' in name else 'test', skipped, command.part)
    if program.endswith('.py'):  # the name alone
        program, words = 'python', [program, *words]
    if program != 'python' or not words or words[0].startswith('-'):
        return None
    script, *words = words
    found = re.fullmatch(r'(?:\S*/)?tools/((?:analysis_tools/|model_converters/)?\w+)\.py', script)
    if script.startswith('mmsegmentation/'):
        return None
    if found is None and '/' not in script:
        names = [path for path in (REPOSITORY / 'tools').rglob(script)]
        found = re.fullmatch(r'tools/(\S+)\.py', str(names[0].relative_to(REPOSITORY))) if names else None
    if found is not None:
        return check_tool(found[1], words, command.part)
    if not (REPOSITORY / script).is_file():
        raise Wrong(f'there is no {script}')
    return parse_script(REPOSITORY / script, words, monkeypatch)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_commands(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(argparse.ArgumentParser, 'error', refuse)
    monkeypatch.chdir(REPOSITORY)
    text, wrong = text_of(page), []
    commands = list(inline(text))
    try:
        commands += called(folder, '\n'.join(map(textwrap.dedent, blocks(text))))
    except Wrong as error:
        wrong.append(str(error))
    shown = WRONG_ON_PURPOSE.get(str(page.relative_to(REPOSITORY)), ())
    for command in dict.fromkeys(commands):
        if command.words[-1] in shown:
            continue
        try:
            check(command, monkeypatch)
        except Exception as error:  # whatever it is, the page is wrong, or this test
            wrong.append(f'{shlex.join(command.words)}\n    {type(error).__name__}: {error}')
    assert not wrong, '\n'.join(wrong)
