"""Build the wheel and the source distribution into dist/ and check them as their users receive them.

python .dev_scripts/release.py            # in fresh environments, which download what they need: about 2 GB
python .dev_scripts/release.py --reuse    # the mm packages and torch of this environment, the wheel alone anew

Needs the network for the build's own tools. What does not pass leaves dist/ as it was.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
DIST = REPOSITORY / 'dist'
MOST_MIB = 12
"""Of the wheel."""


class Environment:
    """A virtual environment of its own.

    Args:
        folder: Where it is made.
    """

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=True)
        self.folder = folder
        self.bin = folder / ('Scripts' if os.name == 'nt' else 'bin')

    def reuse(self) -> None:
        """See the packages of the environment that runs this, too, behind its own."""
        inner = next(self.folder.glob('lib/python*/site-packages'))
        # A line of a .pth file is a folder; the .pth files inside that folder, such as editable installs, stay out.
        (inner / 'reused.pth').write_text(sysconfig.get_path('purelib') + '\n')

    def run(self, *words: object, folder: Path) -> None:
        """Run its Python outside of the checkout, whatever the caller's environment says.

        Raises:
            SystemExit: The status is not 0.
        """
        kept = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'VIRTUAL_ENV')}
        path = f'{self.bin}{os.pathsep}{kept.get("PATH", "")}'
        done = subprocess.run([self.bin / 'python', *map(str, words)], cwd=folder, env={**kept, 'PATH': path})
        if done.returncode:
            sys.exit(f'release.py: python {" ".join(map(str, words))} ended with {done.returncode}')

    def install(self, *words: object) -> None:
        """Run pip."""
        self.run('-m', 'pip', '--disable-pip-version-check', 'install', '--quiet', *words, folder=REPOSITORY)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--reuse', action='store_true', help='use the packages of this environment beside the wheel')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        made = build(folder)
        check_size(made)
        check_wheel(folder, next(file for file in made if file.suffix == '.whl'), args.reuse)
        shutil.rmtree(DIST, ignore_errors=True)
        DIST.mkdir()
        for file in made:
            shutil.copy(file, DIST)
    print('\n'.join(f'{DIST / file.name}' for file in made))


def build(folder: Path) -> list[Path]:
    """Build both distributions, the wheel from the source distribution, and have twine check them."""
    print('building', flush=True)
    tools = Environment(folder / 'tools')
    tools.install('-r', REPOSITORY / 'requirements' / 'release.txt')
    tools.run('-m', 'build', '--outdir', folder / 'made', REPOSITORY, folder=folder)
    made = sorted((folder / 'made').iterdir())
    tools.run('-m', 'twine', 'check', '--strict', *made, folder=folder)
    return made


def check_size(made: list[Path]) -> None:
    """Refuse a wheel that is too large."""
    for file in made:
        size = file.stat().st_size / 2**20
        print(f'{file.name}: {size:.1f} MiB', flush=True)
        if file.suffix == '.whl' and size >= MOST_MIB:
            sys.exit(f'release.py: {file.name} has {size:.1f} MiB, and is to have less than {MOST_MIB}')


def check_wheel(folder: Path, wheel: Path, reuse: bool) -> None:
    """Install the wheel and use it as somebody without a checkout does."""
    print('installing', flush=True)
    fresh = Environment(folder / 'fresh')
    if reuse:
        fresh.install('--no-deps', wheel)
        # A new environment of Python 3.11 and before has an old one, which torch refuses.
        fresh.run('-m', 'pip', 'uninstall', '--quiet', '--yes', 'setuptools', folder=folder)
        fresh.reuse()
    else:
        fresh.install(f'{wheel}[onedl]')
    fresh.run('-m', 'pip', 'check', folder=folder)
    work = folder / 'work'
    work.mkdir()
    fresh.run(REPOSITORY / '.dev_scripts' / 'check_installed.py', folder=work)


if __name__ == '__main__':
    main()
