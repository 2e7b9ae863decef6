"""What is imported when: a command's options before anything heavy, the transport without the mm packages."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import pytest

from omh_mmseg import stack
from omh_mmseg.commands import start as start_module

REPOSITORY = Path(__file__).resolve().parents[1]
TOOLS = sorted(str(path.relative_to(REPOSITORY / 'tools')) for path in (REPOSITORY / 'tools').rglob('*.py'))
COMMANDS = REPOSITORY / 'omh_mmseg' / 'commands'
SHARED = {'__init__', 'options', 'start'}

# What the interpreter's own start brings, such as the hooks of editable installs, is there before.
RUN = """
import json, runpy, sys
{first}
before = set(sys.modules)
try:
{statements}
except SystemExit as end:
    assert not end.code, end.code
names = {{name.partition('.')[0] for name in set(sys.modules) - before}} - set(sys.stdlib_module_names)
print()
print(json.dumps(sorted(names - {{'omh_mmseg', '__mp_main__'}})))
"""


def imported_by(statements: str, first: str = '') -> set[str]:
    """Packages outside the standard library that statements import in a fresh interpreter, where others came first."""
    code = RUN.format(first=first, statements='\n'.join(f'    {line}' for line in statements.splitlines()))
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize('tool', TOOLS)
def test_options_are_read_before_anything_is_imported(tool: str) -> None:
    path = str(REPOSITORY / 'tools' / tool)
    run = f'sys.argv = [{path!r}, "--help"]\nrunpy.run_path({path!r}, run_name="__main__")'
    assert imported_by(run) == set()


def test_every_command_has_its_tool() -> None:
    modules = {str(path.relative_to(COMMANDS)) for path in COMMANDS.rglob('*.py') if path.stem not in SHARED}
    assert modules == set(TOOLS)


def test_package_alone() -> None:
    assert imported_by('import omh_mmseg\nomh_mmseg.list_configs()') == set()


def test_transport() -> None:
    assert imported_by('import omh_mmseg.transport', first='import torch, ot') == set()


def test_free_modules() -> None:
    """What the import hook lets through imports no mm package, or it would be imported while half of it exists."""
    assert not any(stack.needs_stack(f'omh_mmseg.{name}') for name in stack.FREE)
    statements = (f'import omh_mmseg.{name}' for name in stack.FREE)
    assert imported_by('\n'.join(statements), first='import torch, ot') == set()


def test_loading_looks_for_no_garbage_and_a_command_keeps_what_is_imported() -> None:
    """A library leaves the collector as it was; a command's process takes what it imports out of the search."""
    code = """
import gc, sys
from omh_mmseg.stack import keep_imports
counts = [0]
gc.callbacks.append(lambda phase, info: counts.append(info['generation']) if phase == 'start' else None)
if sys.argv[1] == 'command': keep_imports()
before = len(counts)
import omh_mmseg.apis
assert len(counts) < before + 20 and gc.isenabled(), counts  # several hundred otherwise
print(gc.get_freeze_count() > 100_000)
"""
    for kind, expected in (('command', 'True'), ('library', 'False')):
        done = subprocess.run(
            [sys.executable, '-c', code, kind], cwd=REPOSITORY, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[-1] == expected


def test_only_a_process_of_its_own_keeps_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    monkeypatch.setattr(start_module, 'keep_imports', lambda: called.append('kept'))
    parser = argparse.ArgumentParser()
    start_module.start('any.py', parser, lambda args: None, [])
    assert called == []
    monkeypatch.setattr(sys, 'argv', ['any.py'])
    start_module.start('any.py', parser, lambda args: None)
    assert called == ['kept']
