"""Follows every link of the built site that stays within it: files, anchors, pictures."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Links and anchors of a page.

    Args:
        path: Its file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.feed(path.read_text(encoding='utf-8'))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect what links and what can be linked to."""
        for name, value in attrs:
            if name == 'id' or (tag == 'a' and name == 'name'):
                self.anchors.add(value or '')
            elif name in ('href', 'src') and value:
                self.links.append(value)


def check_links(folder: Path) -> tuple[list[str], set[str]]:
    """Broken links of the pages below a folder, and the addresses of other sites that they name."""
    pages = {path.resolve(): Page(path) for path in sorted(folder.rglob('*.html'))}
    broken, external = [], set()
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if parts.scheme.startswith('http'):
                    external.add(link)
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.exists():
                broken.append(f'{path.relative_to(folder.resolve())}: {link} leads to no file')
            elif anchor and target in pages and anchor not in pages[target].anchors:
                broken.append(f'{path.relative_to(folder.resolve())}: {link} leads to no anchor')
    return broken, external
