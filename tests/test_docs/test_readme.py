"""Commands of the README and of docs/usage.md fit their parsers; the README's Python runs; its scores have a page."""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentParser
from importlib import import_module
from pathlib import Path

import pytest
import yaml

import omh_mmseg
from omh_mmseg.datasets.demo_scenes import draw_examples
from omh_mmseg.utils.config import read_config
from omh_mmseg.utils.metafiles import read_models

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / 'README.md').read_text()
USAGE = (REPOSITORY / 'docs' / 'usage.md').read_text()
BLOCK = re.compile(r'^```(\w+)\n(.*?)^```', re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r'^    (python tools/.+)$', re.MULTILINE)
OTHERS = ('git', 'cd')


def commands(text: str) -> list[list[str]]:
    """The words of every command in the shell blocks of a page."""
    blocks = [block for language, block in BLOCK.findall(text) if language == 'bash'] + INDENTED.findall(text)
    lines = [line for block in blocks for line in block.replace('\\\n', ' ').splitlines()]
    parts = [part for line in lines for part in line.split('&&')]
    return [words for part in parts if (words := shlex.split(part, comments=True))]


def module_of(words: list[str]) -> tuple[str, list[str]] | None:
    """The command's module below ``omh_mmseg.commands``, and its arguments; None for programs of others."""
    if words[0].startswith('omh-'):
        return words[0].removeprefix('omh-'), words[1:]
    if words[0] == 'python' and words[1].startswith('tools/'):
        return words[1].removeprefix('tools/').removesuffix('.py').replace('/', '.'), words[2:]
    return None


@pytest.mark.parametrize('words', commands(README) + commands(USAGE), ids=' '.join)
def test_command(words: list[str]) -> None:
    found = module_of(words)
    if found is not None:
        name, arguments = found
        parser: ArgumentParser = import_module(f'omh_mmseg.commands.{name}').build_parser()
        args = parser.parse_args(arguments)
        named = getattr(args, 'config', None) or ''
        if re.fullmatch(r'(omh_)?(stego|hp|smooseg)_[\w-]+', named):
            read_config(omh_mmseg.config_path(named), getattr(args, 'cfg_options', None))
    elif words[0] == 'make':
        assert re.search(rf'^{words[1]}:', (REPOSITORY / 'Makefile').read_text(), re.MULTILINE)
    elif words[:2] == ['pip', 'install']:
        project = (REPOSITORY / 'pyproject.toml').read_text()
        assert all(re.search(rf'^{extra} = \[', project, re.MULTILINE) for extra in re.findall(r'\[(\w+)\]', words[2]))
        assert all((REPOSITORY / words[place + 1]).is_file() for place, word in enumerate(words) if word == '-r')
    else:
        assert words[0] in OTHERS, f'nothing is known of {words[0]}'


def test_ways_of_a_folder_are_short() -> None:
    """From nothing to the page of one's own photos in at most five commands."""
    section = README.split('## Your own photos')[1].split('\n## ')[0]
    until_page = [words[0] for words in commands(section)][:2]
    install = commands(README.split('## Install')[1].split('\n## ')[0])
    assert until_page == ['omh-train', 'omh-explore'] and len(install) - 1 + len(until_page) <= 5


def test_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (draw_examples(tmp_path, 1) / 'scene_00.png').rename(tmp_path / 'photo.jpg')
    blocks = [block for language, block in BLOCK.findall(README) if language == 'python']
    (tmp_path / 'mine.py').write_text(blocks[0])
    config = read_config(str(tmp_path / 'mine.py'))
    assert config.model.backbone.backbone.type == 'mmpretrain.ResNet' and config.model.omh_head
    for block in blocks[1:]:
        exec(compile(block, 'README.md', 'exec'), {})


def test_scores_are_those_of_their_pages() -> None:
    """Ours are cells of one row of the study, reported ones stand in the metafiles."""
    row = r'^\| (.+?) \| (.+?) \| (.+?) \| (.+?) \| \*(ours|reported)\* \| \[\w+\]\((.+?)\) \|$'
    rows = re.findall(row, README, re.MULTILINE)
    assert len(rows) == 9
    reported = [figures['Figures'] for entry in read_models().values() for figures in entry.get('Reported', [])]
    for name, host, control, omh, kind, page in rows:
        text = (REPOSITORY / page).read_text()
        assert all(figure in text for figure in re.findall(r'[\d.]*\d', f'{host} {control} {omh}')), name
        if kind == 'reported':
            miou, accuracy = map(float, host.split(' / '))
            assert dict(mIoU=miou, Accuracy=accuracy) in reported and (control, omh) == ('-', 'none could be read')
            continue
        images, method, seeds = re.fullmatch(r'(.+?), (.+?)(?: on MobileNetV2)?, (\d+) seeds', name).groups()
        start = f'| {images} | {method} | {seeds} | '
        (line,) = (line for line in text.splitlines() if line.startswith(start))
        cells = [re.sub(r' ± [\d.]+', '', cell) for cell in line[len(start) :].rstrip(' |').split(' | ')]
        # Host, host + refit, control, control + refit, OMH, OMH + refit.
        assert (host, control, omh) == (cells[0], cells[2], cells[4]), name


def test_pictures_are_made_by_commands() -> None:
    """Every picture of the README has a command in the repository, which it names."""
    for picture in re.findall(r'!\[[^\]]*\]\((docs/[^)]+)\)', README):
        assert (REPOSITORY / picture).is_file()
        scripts = re.findall(r'\.dev_scripts/[\w-]+\.py', README)
        assert any(Path(picture).name in (REPOSITORY / script).read_text() for script in scripts)
    workflow = yaml.safe_load((REPOSITORY / '.github/workflows/ci.yml').read_text())
    assert workflow['name'] == 'CI' and 'workflows/ci.yml/badge.svg' in README
