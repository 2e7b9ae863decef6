"""The project's metadata, requirement lanes and commands agree with each other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from setuptools.config.pyprojecttoml import read_configuration

import omh_mmseg
from omh_mmseg import stack

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def project() -> dict:
    return read_configuration(REPOSITORY / 'pyproject.toml', expand=False)['project']


def pins(lane: str) -> dict[str, str]:
    """Exact versions of a requirement file, by distribution."""
    found = {}
    for line in (REPOSITORY / 'requirements' / f'{lane}.txt').read_text().splitlines():
        if line and not line.startswith('#'):
            requirement = Requirement(line)
            (specifier,) = requirement.specifier
            assert specifier.operator == '==', line
            found[requirement.name] = specifier.version
    return found


def test_version_has_one_source(project: dict) -> None:
    assert 'version' not in project and project['dynamic'] == ['version']
    assert re.fullmatch(r'\d+\.\d+\.\d+(\.dev0)?', omh_mmseg.__version__)
    setup = (REPOSITORY / 'setup.py').read_text() + (REPOSITORY / 'pyproject.toml').read_text()
    assert f"'{omh_mmseg.__version__}'" not in setup
    released = yaml.safe_load((REPOSITORY / 'CITATION.cff').read_text())['version']
    first, second = (REPOSITORY / 'CHANGELOG.md').read_text().split('\n## [')[1:3]
    assert first.startswith('Unreleased]') and second.startswith(f'{released}]')
    # What is not released has not the name of what is.
    assert omh_mmseg.__version__.endswith('.dev0') == ('\n- ' in first)
    assert omh_mmseg.__version__.endswith('.dev0') or omh_mmseg.__version__ == released


def test_base_install_pulls_no_mm_package(project: dict) -> None:
    names = {Requirement(line).name for line in project['dependencies']}
    assert names == {'filelock', 'numpy', 'pillow', 'pot', 'rich', 'scipy', 'torch'}


def test_extras(project: dict) -> None:
    extras = {'onedl', 'openmmlab', 'crf', 'faiss', 'safetensors', 'study', 'tiff', 'timm', 'video'}
    extras |= {'test', 'lint', 'docs'}
    assert set(project['optional-dependencies']) == extras
    for lane in ('lint',):
        pinned = {Requirement(line).name: str(Requirement(line).specifier) for line in
                  project['optional-dependencies'][lane]}
        assert pinned == {name: f'=={version}' for name, version in pins(lane).items()}


@pytest.mark.parametrize('family', sorted(stack.FAMILIES))
def test_extras_of_the_families(project: dict, family: str) -> None:
    """They take what the stack takes, and bring all that the lane has beside the base install."""
    extra = {item.name: item for item in map(Requirement, project['optional-dependencies'][family])}
    for release in stack.FAMILIES[family]:
        if release.distribution in extra:
            assert extra[release.distribution].specifier == SpecifierSet(f'>={release.tested},<{release.below}')
    base = {Requirement(line).name for line in project['dependencies']}
    assert set(extra) == set(pins(family)) - base


@pytest.mark.parametrize('extra', ['study', 'test', 'docs'])
def test_pins_of_the_tests_satisfy_the_extras(project: dict, extra: str) -> None:
    others = {'omh-mmseg', 'matplotlib'}  # this package, and what every mm family brings
    requirements = [Requirement(line) for line in project['optional-dependencies'][extra]]
    pinned = pins('docs' if extra == 'docs' else 'test')
    assert {requirement.name for requirement in requirements} - others <= set(pinned)
    assert all(item.specifier.contains(pinned[item.name]) for item in requirements if item.name in pinned)


@pytest.mark.parametrize('family', sorted(stack.FAMILIES))
def test_pins_are_what_the_stack_calls_tested(family: str) -> None:
    pinned = pins(family)
    mm = {name: version for name, version in pinned.items() if name.startswith(('mm', 'onedl-'))}
    tested = {release.distribution: release.tested for release in stack.FAMILIES[family]}
    if family == 'openmmlab':
        assert tested.pop('mmcv') == tested['mmcv-lite']
    assert mm == tested


@pytest.mark.parametrize('family', sorted(stack.FAMILIES))
def test_table_of_supported_versions(family: str) -> None:
    """The README says which versions CI runs: the pinned ones."""
    readme = (REPOSITORY / 'README.md').read_text()
    (row,) = re.findall(rf'^\| mm packages, `{family}` \|.*$', readme, re.M)
    (torch_row,) = re.findall(r'^\| torch \|.*$', readme, re.M)
    pinned = pins(family)
    assert f'{pinned["torch"]}, on the CPU' in torch_row and '| 2.6 and later |' in torch_row
    run = row.split('|')[3]
    assert all(f'{name} {version}' in row for name, version in pinned.items() if name.startswith(('mm', 'onedl')))
    assert 'these versions' in run or all(f'{name} {version}' in run for name, version in pinned.items()
                                          if name.startswith(('mm', 'onedl')))


@pytest.mark.parametrize('family', sorted(stack.FAMILIES))
def test_lanes_satisfy_the_base_install(project: dict, family: str) -> None:
    pinned = pins(family)
    for line in project['dependencies']:
        requirement = Requirement(line)
        if requirement.name in pinned:
            assert requirement.specifier.contains(pinned[requirement.name]), line
    assert {'torch', 'pot'} <= set(pinned)


def test_installed_layout_reaches_configs_and_tools() -> None:
    mim = REPOSITORY / 'omh_mmseg' / '.mim'
    assert (mim / 'configs').resolve() == REPOSITORY / 'configs'
    assert (mim / 'tools').resolve() == REPOSITORY / 'tools'
    assert (mim / 'model-index.yml').resolve() == REPOSITORY / 'model-index.yml'


def test_python_range(project: dict) -> None:
    makefile = (REPOSITORY / 'Makefile').read_text()
    assert project['requires-python'] == '>=3.10,<3.13'
    assert '(3, 10) <= sys.version_info[:2] < (3, 13)' in makefile
    named = [line.rpartition(' :: ')[2] for line in project['classifiers'] if ':: Python :: 3.' in line]
    matrix = yaml.safe_load((REPOSITORY / '.github/workflows/ci.yml').read_text())['jobs']['test']['strategy']['matrix']
    assert matrix == {'python': named, 'lane': sorted(stack.FAMILIES)}


def test_hooks_run_what_make_lint_runs() -> None:
    (local,) = yaml.safe_load((REPOSITORY / '.pre-commit-config.yaml').read_text())['repos']
    recipe = re.search(r'^lint: .*\n((?:\t.*\n)+)', (REPOSITORY / 'Makefile').read_text(), re.M)
    assert recipe is not None and len(recipe[1].splitlines()) == len(local['hooks'])
    assert [hook['id'] for hook in local['hooks']] == list(pins('lint'))
    for hook, line in zip(local['hooks'], recipe[1].splitlines()):
        words = hook['entry'].removeprefix('python -m ').split()[:2]
        assert all(word in line for word in words), f'{hook["entry"]} is not {line.strip()}'


@pytest.mark.skipif(shutil.which('make') is None, reason='make is not installed')
class TestMakefile:
    def make(self, *arguments: str, path: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ['make', '-C', str(REPOSITORY), *arguments], capture_output=True, text=True, timeout=300,
            env={'PATH': path, 'HOME': os.environ.get('HOME', '/'), **environment},
        )

    def test_targets(self) -> None:
        targets = ('demo', 'test', 'test-slow', 'lint', 'docs', 'bench', 'release', 'clean')
        done = self.make('--dry-run', *targets, path=os.environ['PATH'])
        assert done.returncode == 0, done.stderr
        assert 'OMP_NUM_THREADS=1' in done.stdout and "-m 'not slow'" in done.stdout

    def test_active_environment_of_an_unsupported_python(self, tmp_path: Path) -> None:
        (tmp_path / 'bin').mkdir()
        python = tmp_path / 'bin' / 'python'
        python.write_text('#!/bin/sh\nexit 1\n')
        python.chmod(0o755)
        done = self.make('test', path=os.environ['PATH'], VIRTUAL_ENV=str(tmp_path))
        assert done.returncode != 0
        assert f'the active environment {tmp_path} has no Python 3.10' in done.stderr
        assert [file.name for file in tmp_path.iterdir()] == ['bin']

    def test_requirements_key_the_mark_of_a_finished_install(self, tmp_path: Path) -> None:
        for name in ('Makefile', 'pyproject.toml', 'setup.py'):
            shutil.copy(REPOSITORY / name, tmp_path / name)
        shutil.copytree(REPOSITORY / 'requirements', tmp_path / 'requirements')
        show = ['make', '-s', '-C', str(tmp_path), '--eval', 'show: ; @echo $(READY)', 'show']
        before = subprocess.run(show, capture_output=True, text=True, check=True).stdout
        with (tmp_path / 'requirements' / 'onedl.txt').open('a') as file:
            file.write('ftfy\n')
        after = subprocess.run(show, capture_output=True, text=True, check=True).stdout
        assert before != after and '.omh_mmseg-' in before
