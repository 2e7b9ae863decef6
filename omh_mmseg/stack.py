"""Which mm packages are installed, whether they fit together, and the one error that says what to install.

The mm packages come in two families with the same import names: ``openmmlab``, the original distributions, frozen since
2024, and ``onedl``, their maintained forks. The base install forces neither.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib import import_module, metadata
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple

from omh_mmseg.shipped import in_checkout, install_extra


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
FREE = (
    'checkpoint_files', 'choices', 'commands', 'launchers', 'shipped', 'stack', 'structures.protocols', 'switches',
    'transport', 'utils.commands', 'utils.files', 'utils.precision', 'utils.settings', 'utils.text', 'utils.work_dirs',
    'version',
)  # fmt: skip
"""Modules and packages of omh_mmseg that import no mm package before one of their functions is called."""


def install_command(family: str) -> str:
    """What installs the tested packages of a family: from the repository, or for an installed package its extra."""
    return f'pip install -r requirements/{family}.txt' if in_checkout() else install_extra(family)


class StackError(ImportError):
    """The mm packages are missing, mixed or of an unsupported version; the message names the command that helps."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f'omh_mmseg needs MMEngine, MMCV, MMSegmentation and MMPreTrain, but {found}.\n'
            f'Install the tested stack: {install_command("onedl")}\n'
            f'(or, for the original distributions, in a fresh environment: {install_command("openmmlab")}).'
        )


def is_present(module: str) -> bool:
    """Whether ``module`` could be imported, without importing it."""
    if module in sys.modules:
        return sys.modules[module] is not None
    return find_spec(module) is not None


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


class WatchedLoader(Loader):
    """Loads a module once the whole library is loaded, or refuses it.

    Args:
        loader: That of the module.
        load: Called before; what it has imported of the module is then the module.
    """

    def __init__(self, loader: Any, load: Callable[[], None]) -> None:
        self.loader = loader
        self.load = load

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Load the library."""
        self.load()
        self.loaded = sys.modules.get(spec.name)
        self.spec = getattr(self.loaded, '__spec__', None)
        return self.loaded or self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, or leave it as it is where loading the library has run it."""
        if self.loaded is not None:
            module.__spec__ = self.spec
            return
        if module.__spec__ is not None:
            module.__spec__.loader = module.__loader__ = self.loader
        self.loader.exec_module(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)


class StackFinder:
    """Import hook that loads the whole library with the first import that needs it.

    These are the mm packages, so that mmseg finds what configs name as soon as ``omh_mmseg`` and an mm package are in
    one process, and the rooms of this package that need them. Until then ``import omh_mmseg`` costs nothing, and
    :mod:`omh_mmseg.transport` works with torch and pot alone, whichever mm packages are there.

    Args:
        load: Applies `omh_mmseg.compat` and imports every room; raises `StackError`.

    Attributes:
        when_loaded: What to call after it.
    """

    def __init__(self, load: Callable[[], None]) -> None:
        self._load = load
        self._resting = False
        self.when_loaded: list[Callable[[], None]] = []

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Have what needs the library loaded by a `WatchedLoader`; leave every other import to others."""
        if self._resting or not (name in STACK or needs_stack(name)):
            return None
        specs = (finder.find_spec(name, path, target) for finder in sys.meta_path if finder is not self)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader = WatchedLoader(spec.loader, partial(self.load, name))
        return spec

    def load(self, name: str) -> None:
        """Load the library for the import of ``name``; further calls do nothing.

        Raises:
            StackError: It cannot be, and ``name`` is part of it. Others are for their users to import.
        """
        if self._resting:
            return
        self._resting = True
        collects = gc.isenabled()
        # What is imported stays, and looking for garbage among it would take a sixth of the time.
        gc.disable()
        try:
            self._load()
            sys.meta_path.remove(self)
        except StackError as error:
            self._resting = False
            if name not in STACK:
                raise
            # In a process that uses mmseg, this would else end in a registry that does not know a name.
            if name == 'mmseg':
                warnings.warn(f'Configs of omh_mmseg do not work in this process: {error}', stacklevel=2)
        except BaseException:
            self._resting = False
            raise
        finally:
            if collects:
                gc.enable()
        for call in self.when_loaded:
            call()


def needs_stack(name: str) -> bool:
    """Whether a module of this package needs the mm packages: all but ``FREE`` and what lies in these or above."""
    package, _, inner = name.partition('.')
    free = any(f'{name}.'.startswith(f'{inner}.') or inner.startswith(f'{name}.') for name in FREE)
    return package == 'omh_mmseg' and not free


def keep_imports() -> None:
    """Take all that loading the library imports out of the search for garbage, for the rest of the process.

    mmengine makes one for each data set that it builds, and Python one as it ends: a fifth of a second and more among
    all of torch and mmseg. For a process of our own alone: what is garbage by then stays as well. Where the library is
    loaded already, this is done at once.
    """
    finder = next((one for one in sys.meta_path if isinstance(one, StackFinder)), None)
    if finder is None:
        gc.freeze()
    else:
        finder.when_loaded.append(gc.freeze)


def load_when_needed(load: Callable[[], None]) -> None:
    """Load the library with the first import that needs it, or now where an mm package is imported already."""
    finder = StackFinder(load)
    sys.meta_path.insert(0, finder)
    imported = [module for module in STACK if sys.modules.get(module) is not None]
    if imported:
        finder.load('mmseg' if 'mmseg' in imported else imported[0])
