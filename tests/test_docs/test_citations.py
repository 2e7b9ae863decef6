"""What code, configs and pages cite exists: paragraphs of docs/methods, the papers of ``Source:``, links of pages."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
METHODS = REPOSITORY / 'docs' / 'methods'
ROOMS = ('omh_mmseg', 'configs', 'tools', 'tests', 'benchmarks', 'docs')
FILES = sorted(
    path
    for room in ROOMS
    for path in (REPOSITORY / room).rglob('*')
    # omh_mmseg/.mim holds links to configs and tools.
    if path.suffix in ('.py', '.md', '.sh') and '.mim' not in path.parts
) + [REPOSITORY / name for name in ('README.md', 'CONTRIBUTING.md')]
BY_THEMSELVES = ('omh.md', 'eagle.md', 'primaps.md')
PAGES = [path for path in FILES if path.suffix == '.md']

# 3A, 3A.5, A, A.10, 0, 8.13
PARAGRAPH = r'(?:\d[A-C](?:\.\d+)?|[AB](?:\.\d+)?|\d{1,2}(?:\.\d+)?)(?![\w%]|\.\d)'
PARAGRAPHS = rf'{PARAGRAPH}(?:(?:, | and | to ){PARAGRAPH})*'
CITATION = re.compile(
    rf'docs/(?P<page>(?:methods/)?\w+\.md)(?:#(?P<anchor>[\w.-]*\w)|(?: (?P<list>{PARAGRAPHS}))?)'
)
ANCHOR = re.compile(r'<a id="([^"]+)"></a>')
EXTERNAL_NAMES = re.compile(r'\b(?:METHODS|OMH|ARCHITECTURE)\.md')
PAPER = re.compile(r'\b(?:19|20)\d\d\b|\barXiv[: ]\d{4}\.\d{4,5}\b')


def folded(text: str) -> str:
    """The text on one line, without the marks of comments at line breaks."""
    return re.sub(r'\s*\n\s*(?:#(?= ) )?', ' ', text)


def anchors(page: Path) -> set[str]:
    """Explicit anchors, and those that a reader's browser makes of headings."""
    text = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.DOTALL | re.MULTILINE)
    slugs: Counter[str] = Counter()
    names = set(ANCHOR.findall(text))
    for heading in re.findall(r'^#+ (.+)$', text, flags=re.MULTILINE):
        plain = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', re.sub(r'<[^>]*>', '', heading)).strip().lower()
        slug = re.sub(r'[^\w\- ]', '', plain).replace(' ', '-')
        names.add(f'{slug}-{slugs[slug]}' if slugs[slug] else slug)
        slugs[slug] += 1
    return names


def paragraphs(listed: str) -> list[str]:
    """``'3B.5 to 3B.7 and 4.4'`` as ``['3B.5', '3B.6', '3B.7', '4.4']``."""
    names: list[str] = []
    for part in re.split(', | and ', listed):
        first, _, last = part.partition(' to ')
        names.append(first)
        if last:
            stem, dot, number = first.rpartition('.')
            end = last.removeprefix(stem + dot)
            assert number.isdigit() and end.isdigit() and int(number) < int(end), f'not a range: {part!r}'
            names += [f'{stem}{dot}{value}' for value in range(int(number) + 1, int(end) + 1)]
    return names


def unresolved(text: str) -> tuple[int, list[str]]:
    """How many paragraphs and pages a text cites, and those that do not exist."""
    count, missing = 0, []
    for citation in CITATION.finditer(folded(text)):
        page = REPOSITORY / 'docs' / citation['page']
        names = paragraphs(citation['list']) if citation['list'] else [citation['anchor']] if citation['anchor'] else []
        count += max(1, len(names))
        if not page.is_file():
            missing.append(f'docs/{citation["page"]}')
        else:
            missing += [f'docs/{citation["page"]} {name}' for name in names if name not in anchors(page)]
    return count, missing


def test_citations_resolve() -> None:
    total, missing = 0, []
    for path in FILES:
        if path != Path(__file__).resolve():
            count, names = unresolved(path.read_text())
            total += count
            missing += [f'{path.relative_to(REPOSITORY)}: {name}' for name in names]
    assert not missing, 'cited, but not there:\n' + '\n'.join(missing)
    assert total > 250


@pytest.mark.parametrize(
    ('text', 'count', 'missing'),
    [
        ('(docs/methods/stego.md 3A.5).', 1, []),
        ('# as docs/methods/hp.md 3B.5 to\n    # 3B.7 and 4.4: 30 epochs', 4, []),
        ('docs/methods/features.md 1.2, docs/methods/hp.md\n    3B.6, 8.9', 3, []),
        ('docs/methods/omh.md 2 and 4, after arXiv', 2, []),
        ('docs/methods/stego.md 3A.5, 7000 steps', 1, []),
        ('`docs/methods/stego.md#3A.5`', 1, []),
        ('docs/architecture.md', 1, []),
        ('docs/methods/stego.md 3B.5', 1, ['docs/methods/stego.md 3B.5']),
        ('docs/methods/hp.md 3B.10 to 3B.12.', 3, ['docs/methods/hp.md 3B.12']),
        ('docs/methods/stego.md#3A.55', 1, ['docs/methods/stego.md 3A.55']),
        ('docs/methods/primer.md 1', 1, ['docs/methods/primer.md']),
    ],
)
def test_the_check_itself(text: str, count: int, missing: list[str]) -> None:
    assert unresolved(text) == (count, missing)


def test_no_page_outside_the_repository() -> None:
    lines = [
        f'{path.relative_to(REPOSITORY)}:{number}: {line.strip()}'
        for path in FILES
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if EXTERNAL_NAMES.search(line)
    ]
    assert not lines, 'cite a page of docs/methods, or docs/architecture.md:\n' + '\n'.join(lines)


def test_sources_name_a_page_or_a_paper() -> None:
    """A paper has a year or an arXiv number."""
    sources = [
        (path, folded(source))
        for path in FILES
        if path.suffix == '.py'
        for source in re.findall(r'^ *Source: .*?(?=\n *\n|"""|\Z)', path.read_text(), flags=re.DOTALL | re.MULTILINE)
    ]
    assert len(sources) > 30
    vague = [
        f'{path.relative_to(REPOSITORY)}: {source.strip()}'
        for path, source in sources
        if not CITATION.search(source) and not PAPER.search(source)
    ]
    assert not vague, 'neither a page nor a paper with its year:\n' + '\n'.join(vague)


def test_a_paragraph_has_one_place() -> None:
    """Some pages count by themselves; headings begin with the number of their anchor; the index names every page."""
    places: dict[str, list[str]] = {}
    for page in METHODS.glob('*.md'):
        text = page.read_text()
        assert page.name == 'README.md' or f'({page.name})' in (METHODS / 'README.md').read_text()
        for name, shown in re.findall(r'<a id="([^"]+)"></a>\**([\w.]+)', text):
            assert name == shown, f'{page.name}: anchor {name} before {shown}'
        for name in ANCHOR.findall(text):
            places.setdefault(f'{page.stem} {name}' if page.name in BY_THEMSELVES else name, []).append(page.name)
    assert {name: pages for name, pages in places.items() if len(pages) > 1} == {}


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links(page: Path) -> None:
    text = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r'`[^`\n]*`', '', text)
    broken = []
    for target in re.findall(r'\]\(([^()\s]+)\)', text):
        if re.match(r'[a-z]+:', target):
            continue
        file, _, anchor = target.partition('#')
        path = (page.parent / file).resolve() if file else page
        if not path.exists():
            broken.append(target)
        elif anchor and path.suffix == '.md' and anchor not in anchors(path):
            broken.append(target)
    assert not broken
