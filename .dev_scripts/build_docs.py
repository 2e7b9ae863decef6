"""Build the docs site into build/docs, with warnings as errors, and follow its links.

python .dev_scripts/build_docs.py               # links within the site; needs no network
python .dev_scripts/build_docs.py --external    # those to other sites, too
python .dev_scripts/build_docs.py --pages       # without the API reference, whose links are then not followed
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / 'docs'
OUT = REPOSITORY / 'build' / 'docs'
sys.path[:0] = [str(REPOSITORY), str(DOCS / '_sphinx')]

from check_links import check_links  # noqa: E402


def sphinx(builder: str, out: Path) -> None:
    """Run Sphinx.

    Raises:
        SystemExit: It warned or failed.
    """
    # Without the API reference its page has nothing to list.
    strict = [] if 'OMH_DOCS_PAGES' in os.environ else ['-W']
    options = [*strict, '--keep-going', '-q', '-b', builder, '-d', str(OUT.parent / 'doctrees')]
    paths = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get('PYTHONPATH')]))
    done = subprocess.run(
        [sys.executable, '-m', 'sphinx', *options, str(DOCS), str(out)], env=os.environ | dict(PYTHONPATH=paths)
    )
    if done.returncode:
        sys.exit('build_docs.py: Sphinx warned, see above; nothing of it may be left')


def main() -> None:
    """Build and check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--external', action='store_true', help='follow links to other sites, too; needs the network')
    parser.add_argument(
        '--pages', action='store_true', help='leave the API reference out, which takes most of the time'
    )
    args = parser.parse_args()
    if args.pages:
        os.environ['OMH_DOCS_PAGES'] = '1'
    begin = time.perf_counter()
    sphinx('html', OUT)
    broken, external = check_links(OUT)
    if broken:
        sys.exit('\n'.join([*broken, f'build_docs.py: {len(broken)} broken links']))
    pages = len(list(OUT.rglob('*.html')))
    seconds = time.perf_counter() - begin
    print(f'{OUT / "index.html"}: {pages} pages after {seconds:.0f} s, all links within them followed')
    if args.external:
        sphinx('linkcheck', OUT.parent / 'linkcheck')
    else:
        print(f'{len(external)} links to other sites not followed; --external does (make docs ARGS=--external)')


if __name__ == '__main__':
    main()
