"""Which state of the package's own source a result was made with."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from omh_mmseg.version import __version__

PACKAGE = Path(__file__).resolve().parents[1]
WITHOUT_EFFECT = ('analysis', 'apis', 'assets', 'commands', 'visualization')
"""Rooms that change no training and no score."""
WITH_EFFECT = dict(engine=('hooks', 'optim_wrapper_constructor'), study=('backbones', 'job'))
"""The modules that do change them, of rooms whose other modules are commands."""


def source_commit() -> str:
    """The git commit, with ``+`` where the package or the configs differ from it; else the version."""
    root = PACKAGE.parent
    try:
        commit = _git('rev-parse', '--short=10', 'HEAD', folder=root)
        changed = _git('status', '--porcelain', '--', str(PACKAGE), str(root / 'configs'), folder=root)
    except (OSError, subprocess.SubprocessError):
        return f'version {__version__}'
    return commit + ('+' if changed else '')


def source_key() -> str:
    """A hash of the source that acts on trainings and scores: the package without pictures, analyses and commands."""
    content = hashlib.sha256()
    for path in sorted(PACKAGE.rglob('*.py')):
        parts = path.relative_to(PACKAGE).parts
        command = parts[0] in WITH_EFFECT and parts[1].removesuffix('.py') not in WITH_EFFECT[parts[0]]
        if parts[0] in WITHOUT_EFFECT or parts[0].startswith('.') or command:
            continue
        content.update('/'.join(parts).encode() + b'\0' + path.read_bytes() + b'\0')
    return content.hexdigest()


def _git(*words: str, folder: Path) -> str:
    done = subprocess.run(['git', *words], cwd=folder, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()
