"""Pages as they are on GitHub: its anchors, and links to files that are no pages of the site."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from docutils import nodes

DOCS = Path(__file__).resolve().parents[1]
REPOSITORY = DOCS.parent
ADDRESS = 'https://github.com/omh-mmseg/omh_mmseg'
# Neither code nor pictures, whose files are copied.
LINK = re.compile(r'(?<!!)(\[(?:[^\[\]]|!\[[^\]]*\]\([^)]*\))*\])\(([^()\s#]+)(#[^()\s]*)?\)')
CODE = re.compile(r'(^[ \t]*```.*?^[ \t]*```[ \t]*$|`[^`\n]+`)', re.DOTALL | re.MULTILINE)
ANCHOR = re.compile(r'<a id="([^"]+)">')


def slug(title: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r'[^\w\- ]', '', title.strip().lower()).replace(' ', '-')


def rewrite_links(page: Path, text: str) -> str:
    """A page's text whose relative links to files beside the pages lead to the repository."""

    def replace(link: re.Match[str]) -> str:
        label, target, anchor = link[1], link[2], link[3] or ''
        path = (page.parent / target).resolve()
        inside = path.suffix == '.md' and path.is_relative_to(DOCS)
        if re.match(r'[a-z]+:', target) or inside or not path.exists():
            return link[0]
        kind = 'tree' if path.is_dir() else 'blob'
        return f'{label}({ADDRESS}/{kind}/main/{path.relative_to(REPOSITORY).as_posix()}{anchor})'

    parts = CODE.split(text)
    return ''.join(part if number % 2 else LINK.sub(replace, part) for number, part in enumerate(parts))


def read_source(app: Any, name: str, source: list[str]) -> None:
    """See `rewrite_links`; tables of the study are reached from its page, not from the navigation."""
    page = Path(app.env.doc2path(name))
    if page.suffix == '.md':
        source[0] = rewrite_links(page, source[0])
    if fnmatch(name, 'study/*/*'):
        source[0] = f'---\norphan: true\n---\n{source[0]}'


def add_anchors(app: Any, tree: nodes.document) -> None:
    """Give every section the anchor that GitHub gives its heading, and those written into it."""
    taken: set[str] = set()
    for section in tree.findall(nodes.section):
        title = section.next_node(nodes.title)
        written = []
        for raw in list(title.findall(nodes.raw)):
            written += ANCHOR.findall(raw.astext())
            raw.parent.remove(raw)
        name, number = slug(title.astext()), 0
        while (name if not number else f'{name}-{number}') in taken:
            number += 1
        name = name if not number else f'{name}-{number}'
        taken.add(name)
        section['ids'] += [one for one in (name, *written) if one and one not in section['ids']]


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect('source-read', read_source)
    app.connect('doctree-read', add_anchors)
    return dict(parallel_read_safe=True, parallel_write_safe=True)
