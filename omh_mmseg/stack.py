"""Which mm packages are installed, whether they fit together, and the one error that says what to install.

The mm packages come in two families with the same import names: ``openmmlab``, the original distributions, frozen since
2024, and ``onedl``, their maintained forks. The base install forces neither.
"""

from __future__ import annotations

import sys
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Any, NamedTuple

INSTALL_ONEDL = 'pip install -r requirements/onedl.txt'
INSTALL_OPENMMLAB = 'pip install -r requirements/openmmlab.txt'


class Release(NamedTuple):
    """A supported distribution: ``tested <= version < below``, where ``tested`` is what the requirements pin."""

    module: str
    distribution: str
    tested: str
    below: str


FAMILIES: dict[str, tuple[Release, ...]] = {
    'onedl': (
        Release('mmengine', 'onedl-mmengine', '0.10.12', '0.11'),
        Release('mmcv', 'onedl-mmcv', '2.3.6', '2.4'),
        Release('mmseg', 'onedl-mmsegmentation', '1.4.2', '1.5'),
        Release('mmpretrain', 'onedl-mmpretrain', '1.3.6', '1.4'),
    ),
    'openmmlab': (
        Release('mmengine', 'mmengine', '0.10.7', '0.11'),
        Release('mmcv', 'mmcv-lite', '2.1.0', '2.2'),
        Release('mmcv', 'mmcv', '2.1.0', '2.2'),
        Release('mmseg', 'mmsegmentation', '1.2.2', '1.3'),
        Release('mmpretrain', 'mmpretrain', '1.2.0', '1.3'),
    ),
}
STACK = ('mmengine', 'mmcv', 'mmseg', 'mmpretrain')
FREE_ROOMS = ('compat', 'stack', 'structures', 'switches', 'transport', 'utils', 'version')


class StackError(ImportError):
    """The mm packages are missing, mixed or of an unsupported version; the message names the command that helps."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f'omh_mmseg needs MMEngine, MMCV, MMSegmentation and MMPreTrain, but {found}.\n'
            f'Install the tested stack from the repository: {INSTALL_ONEDL}\n'
            f'(or, for the original distributions, in a fresh environment: {INSTALL_OPENMMLAB}).'
        )


def is_present(module: str) -> bool:
    """Whether ``module`` could be imported, without importing it."""
    if module in sys.modules:
        return sys.modules[module] is not None
    return find_spec(module) is not None


def stack_is_absent() -> bool:
    """Whether no mm package is installed at all, as where only :mod:`omh_mmseg.transport` is wanted."""
    return not any(is_present(module) for module in STACK)


def installed_versions() -> dict[str, dict[str, str]]:
    """Versions of the installed mm distributions, by family and distribution."""
    versions: dict[str, dict[str, str]] = {}
    for family, releases in FAMILIES.items():
        for release in releases:
            try:
                version = metadata.version(release.distribution)
            except metadata.PackageNotFoundError:
                continue
            versions.setdefault(family, {})[release.distribution] = version
    return versions


def check_stack() -> str | None:
    """Check that one whole family of mm packages is installed, in supported versions.

    Returns:
        ``'onedl'`` or ``'openmmlab'``, or None where the packages are importable but come from no distribution (for
        example source checkouts on ``PYTHONPATH``), whose versions are the user's affair.

    Raises:
        StackError: A package is missing, both families are installed over each other, a version is not supported, or
            OpenCV does not load.
    """
    missing = [module for module in STACK if not is_present(module)]
    if missing:
        present = [module for module in STACK if module not in missing]
        beside = f' ({", ".join(present)} present)' if present else ''
        raise StackError(f'{", ".join(missing)} cannot be imported{beside}')
    from packaging.version import Version

    versions = installed_versions()
    if len(versions) > 1:
        names = [f'{name} {version}' for family in versions.values() for name, version in family.items()]
        raise StackError(
            f'both families are installed over each other ({", ".join(names)}), which overwrite each '
            f"other's files; first uninstall all of them: pip uninstall -y "
            + ' '.join(name for family in versions.values() for name in family)
        )
    family = next(iter(versions), None)
    if family is not None:
        wrong = [
            f'{one.distribution} {versions[family][one.distribution]} is installed where >={one.tested},<{one.below} '
            'is supported'
            for one in FAMILIES[family]
            if one.distribution in versions[family]
            and not Version(one.tested) <= Version(versions[family][one.distribution]) < Version(one.below)
        ]
        if wrong:
            raise StackError('; '.join(wrong))
    check_opencv()
    return family


def check_opencv() -> None:
    """Say what OpenCV lacks.

    Range: ``opencv-python`` of any version on machines without a desktop. Symptom: ``libGL.so.1: cannot open shared
    object file`` from deep inside ``import mmcv``, whose requirements name the OpenCV build with windows.

    Raises:
        StackError: OpenCV is installed and does not load.
    """
    try:
        import_module('cv2')
    except ImportError as error:
        raise StackError(
            f'OpenCV does not load ({error}). On a machine without a desktop install the system libraries '
            '(Debian, Ubuntu: apt-get install libgl1 libglib2.0-0), or the build without windows: '
            'pip uninstall -y opencv-python && pip install opencv-python-headless'
        ) from error


class AbsentStackFinder:
    """Import hook that turns the import of a room that needs the mm packages into the one clear error.

    Installed only where no mm package exists, so that ``import omh_mmseg.transport`` works with torch and pot alone
    while ``import omh_mmseg.models`` does not fail on whichever mm package its first file happens to name.
    """

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        """Raise :class:`StackError` for rooms that are not in ``FREE_ROOMS``; leave every other import to others."""
        if name.startswith('omh_mmseg.') and name.split('.')[1] not in FREE_ROOMS and stack_is_absent():
            raise StackError('none of them is installed')


def guard_rooms() -> None:
    """Install :class:`AbsentStackFinder` once."""
    if AbsentStackFinder not in sys.meta_path:
        sys.meta_path.insert(0, AbsentStackFinder)
