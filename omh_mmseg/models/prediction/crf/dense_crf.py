"""Fully connected CRF that moves the borders of a segmentation to those of the image."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import chain, islice
from typing import Any

import torch
from mmengine.dist import get_world_size
from mmengine.logging import MMLogger
from torch import Tensor

from omh_mmseg.models.prediction.crf.mean_field import mean_field
from omh_mmseg.models.prediction.crf.permutohedral import PermutohedralLattice
from omh_mmseg.models.prediction.crf.worker_pool import WorkerPool
from omh_mmseg.utils.checks import FINITE, POSITIVE, ranges
from omh_mmseg.utils.devices import processors

BACKENDS = ('auto', 'torch', 'pydensecrf')
REPORT_SECONDS = 60.0

Job = tuple[Tensor, Mapping[str, Tensor]]


class DenseCRF:
    r"""Mean-field marginals of a CRF whose every pair of pixels is connected.

    With the unary energy :math:`U = -log(max(p, p_{min}))` of probabilities :math:`p`, and two kernels on position and
    colour (:math:`G`: position alone), each iteration sets

    .. math:: Q \leftarrow softmax(-U + c_G \bar G Q + c_B \bar B Q), \quad
        \bar G = D_G^{-1/2} G D_G^{-1/2}, \quad D_G = diag(G 1)

    from :math:`Q = softmax(-U)` on (Potts model, symmetric normalisation). The kernels are filtered on a permutohedral
    lattice, as pydensecrf does; both backends give the same arg-max up to rounding.

    Args:
        iterations: Of the mean field.
        gaussian_sxy: Standard deviation of the position kernel in pixels.
        gaussian_compat: Its weight.
        bilateral_sxy: Standard deviation of the other kernel's position in pixels.
        bilateral_srgb: Standard deviation of its colours in 0..255.
        bilateral_compat: Its weight.
        min_probability: Below it, a probability counts as this.
        backend: ``'torch'`` computes on the device of the probabilities and with all its threads. ``'pydensecrf'`` is
            the library of the published numbers, in processes of its own on the CPU. ``'auto'`` takes the latter for
            probabilities on the CPU where it is installed.
        workers: Processes of ``'pydensecrf'``; by default the processors of this machine, shared among the ranks.

    Raises:
        ImportError: ``'pydensecrf'`` is asked for and cannot be imported.
        ValueError: An unknown backend, or a number out of range.

    Source: Kraehenbuehl and Koltun, Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS
    2011; docs/methods/evaluation.md 6.5 for the constants.
    """

    @ranges(
        iterations='[1, 1000]', gaussian_sxy=POSITIVE, gaussian_compat=FINITE, bilateral_sxy=POSITIVE,
        bilateral_srgb=POSITIVE, bilateral_compat=FINITE, min_probability='(0, 1)', workers='[1, 1024]',
    )  # fmt: skip
    def __init__(
        self,
        iterations: int = 10,
        gaussian_sxy: float = 1.0,
        gaussian_compat: float = 3.0,
        bilateral_sxy: float = 67.0,
        bilateral_srgb: float = 3.0,
        bilateral_compat: float = 4.0,
        min_probability: float = 1e-5,
        backend: str = 'auto',
        workers: int | None = None,
    ) -> None:
        if backend not in BACKENDS:
            raise ValueError(f'the CRF backend must be one of {BACKENDS}; got {backend!r}.')
        problem = None if backend == 'torch' else _import_problem()
        if backend == 'pydensecrf' and problem is not None:
            raise ImportError(
                f"the CRF backend 'pydensecrf' is not installed ({problem}). Install the extra with: pip install "
                "omh-mmseg[crf] (or pip install pydensecrf2==1.1); or set backend='torch', which gives the same "
                'segmentation and needs nothing.'
            )
        self.settings: dict[str, Any] = dict(
            iterations=iterations,
            gaussian_sxy=gaussian_sxy,
            bilateral_sxy=bilateral_sxy,
            bilateral_srgb=bilateral_srgb,
            gaussian_compat=gaussian_compat,
            bilateral_compat=bilateral_compat,
            min_probability=min_probability,
        )
        self.backend = backend
        if workers is None:
            workers = max(1, processors() // get_world_size())
        self._pool = None if backend == 'torch' or problem is not None else WorkerPool(workers)
        self._position_filter: tuple[tuple[int, int, torch.device], PermutohedralLattice] | None = None
        self._reported = time.monotonic()
        self._seconds, self._images = 0.0, 0

    def refine(self, jobs: Iterable[Job]) -> Iterator[dict[str, Tensor]]:
        """Marginals of several segmentations of each of several images, in the order given.

        Jobs are taken one after the other (with ``'pydensecrf'`` as many at a time as there are workers), so that an
        iterator that makes them when asked keeps the memory small. Every minute the log says how many images are done.

        Args:
            jobs: Pairs of an image, BGR uint8 (3, H, W), whose order of channels moves the lattice and thus a few
                pixels, and of log-probabilities (K, H, W) by name, which are normalised here.

        Yields:
            By name float32 (K, H, W), sums of 1 over K, on the device of the log-probabilities.

        Raises:
            ValueError: The sizes differ.
            RuntimeError: A worker process died.
        """
        start = time.monotonic()
        jobs = iter(jobs)
        first = list(islice(jobs, 1))
        on_cpu = all(maps.device.type == 'cpu' for _, by_name in first for maps in by_name.values())
        jobs = chain(first, jobs)
        if self._pool is not None and (on_cpu or self.backend == 'pydensecrf'):
            results = self._by_workers(jobs, self._pool)
        else:
            results = self._by_torch(jobs)
        for result in results:
            self._seconds += time.monotonic() - start
            self._images += 1
            self._report()
            yield result
            start = time.monotonic()

    def _by_torch(self, jobs: Iterable[Job]) -> Iterator[dict[str, Tensor]]:
        for image, maps in jobs:
            unaries = [self._unary(image, log_probabilities) for log_probabilities in maps.values()]
            if not unaries:
                yield {}
                continue
            filters = self._filters(image.to(unaries[0].device))
            yield dict(zip(maps, mean_field(unaries, filters, self.settings['iterations'])))

    def _by_workers(self, jobs: Iterable[Job], pool: WorkerPool) -> Iterator[dict[str, Tensor]]:
        waiting: list[tuple[list[str], torch.device]] = []

        def split() -> Iterator[tuple[str, tuple[Any, ...]]]:
            for image, maps in jobs:
                waiting.append((list(maps), image.device))
                pixels = image.permute(1, 2, 0).cpu().numpy()
                for name, log_probabilities in maps.items():
                    yield name, (pixels, self._unary(image, log_probabilities).cpu().numpy(), self.settings)

        result: dict[str, Tensor] = {}
        for name, marginals in pool.map(split()):
            names, device = waiting[0]
            result[name] = torch.from_numpy(marginals).to(device)
            if len(result) == len(names):
                waiting.pop(0)
                yield result
                result = {}

    def _unary(self, image: Tensor, log_probabilities: Tensor) -> Tensor:
        if image.shape[1:] != log_probabilities.shape[1:]:
            raise ValueError(
                f'the image is {tuple(image.shape[1:])} and the log-probabilities are '
                f'{tuple(log_probabilities.shape[1:])} (height, width); resize one to the other before the CRF.'
            )
        if image.dtype != torch.uint8 or image.dim() != 3 or image.shape[0] != 3:
            raise ValueError(f'the CRF takes uint8 images (3, H, W); got {image.dtype} {tuple(image.shape)}.')
        probabilities = torch.softmax(log_probabilities.detach().float(), dim=0)
        return -probabilities.clamp(self.settings['min_probability'], 1).log()

    def _filters(self, image: Tensor) -> list[PermutohedralLattice]:
        """Both kernels, normalised and with their weights."""
        height, width = image.shape[1:]
        places = [torch.arange(side, device=image.device, dtype=torch.float32) for side in (height, width)]
        rows, columns = torch.meshgrid(*places, indexing='ij')
        position = torch.stack([columns, rows]).flatten(1)
        key = (height, width, image.device)
        if self._position_filter is None or self._position_filter[0] != key:
            lattice = PermutohedralLattice(position / self.settings['gaussian_sxy'])
            self._position_filter = (key, lattice.normalised(self.settings['gaussian_compat']))
        colours = image.flatten(1).float() / self.settings['bilateral_srgb']
        bilateral = PermutohedralLattice(torch.cat([position / self.settings['bilateral_sxy'], colours]))
        return [self._position_filter[1], bilateral.normalised(self.settings['bilateral_compat'])]

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._reported >= REPORT_SECONDS:
            self._reported = now
            MMLogger.get_current_instance().info(
                f'dense CRF: {self._images} images so far, {self._seconds / self._images:.2f} seconds per image'
            )


@cache
def _import_problem() -> str | None:
    """Why pydensecrf cannot be used; None where it can."""
    try:
        importlib.import_module('pydensecrf.densecrf')
    except ModuleNotFoundError as error:
        return str(error)
    # numpy refuses modules that were compiled for another one by either.
    except (ImportError, ValueError) as error:
        MMLogger.get_current_instance().warning(f'pydensecrf is installed and cannot be imported: {error}')
        return str(error)
    return None
