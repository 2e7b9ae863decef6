"""Draw docs/images/explorer.png: the page of the demo's hierarchy in a headless Chromium.

Needs Chromium (apt-get install chromium) and the page of a demo, whose scenes are drawn:

    make demo
    python .dev_scripts/draw_explorer_picture.py work_dirs/demo/report
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from omh_mmseg.utils.files import replaced_when_complete  # noqa: E402


def view_of(report: Path) -> str:
    """The address part that chooses the coarsest cluster with most parts, the largest of several, one level on."""
    levels = json.loads((report / 'explorer.json').read_text())['levels']
    if len(levels) < 2:
        return ''
    ranks = [
        (sum(finer['parent'] == number and finer['share'] > 0.01 for finer in levels[1]['clusters']), cluster['share'])
        for number, cluster in enumerate(levels[0]['clusters'])
    ]
    return f'level=2&cluster=1-{ranks.index(max(ranks))}'


def draw(report: Path, out: Path, size: tuple[int, int], theme: str, view: str) -> None:
    """Write the picture.

    Raises:
        FileNotFoundError: There is no browser or no page.
    """
    browser = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
    if browser is None:
        raise FileNotFoundError('there is no chromium here: apt-get install chromium')
    if not (report / 'index.html').is_file():
        raise FileNotFoundError(f'there is no page in {report}; make demo writes one to work_dirs/demo/report')
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [browser, '--headless=new', '--no-sandbox', '--hide-scrollbars', '--disable-gpu',
             f'--window-size={size[0]},{size[1]}', '--virtual-time-budget=4000', f'--user-data-dir={folder}/profile',
             f'--screenshot={folder}/page.png', f'file://{report.resolve()}/index.html#theme={theme}&{view}'],
            check=True, capture_output=True,
        )  # fmt: skip
        picture = Image.open(f'{folder}/page.png').convert('RGB')
        with replaced_when_complete(out) as file:
            picture.save(file, format='png', optimize=True)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('report', type=Path, help='folder of a page of drawn scenes')
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/images/explorer.png')
    parser.add_argument('--size', type=int, nargs=2, default=(1280, 900), metavar=('WIDTH', 'HEIGHT'))
    parser.add_argument('--theme', choices=('light', 'dark'), default='light')
    parser.add_argument('--view', help='such as level=3&cluster=2-7; default: the cluster with most parts')
    args = parser.parse_args()
    try:
        view = view_of(args.report) if args.view is None else args.view
        draw(args.report, args.out, tuple(args.size), args.theme, view)
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(f'draw_explorer_picture.py: {error}')
    print(args.out)


if __name__ == '__main__':
    main()
