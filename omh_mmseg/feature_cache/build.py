"""Makes the cache of a data set under a model, or completes it."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, get_dist_info
from mmengine.logging import MMLogger
from torch import Tensor
from torch.utils.data import DataLoader

from omh_mmseg.datasets.random_transforms import random_transforms, transforms_of
from omh_mmseg.feature_cache.cached_features import DTYPES, SAMPLE, CachedFeatures
from omh_mmseg.feature_cache.claims import Claims
from omh_mmseg.feature_cache.disk import free_bytes, gibibytes
from omh_mmseg.feature_cache.fingerprint import cache_fingerprint, fingerprint_key
from omh_mmseg.feature_cache.frozen_part import FEATURES, MIRRORED, VIEW, FrozenPart
from omh_mmseg.feature_cache.items import check_item, packed
from omh_mmseg.feature_cache.store import ALIGNMENT, RECORD, FieldFile, ProcessLock
from omh_mmseg.utils.files import replaced_when_complete
from omh_mmseg.utils.generators import seeded
from omh_mmseg.utils.progress import progress_bar
from omh_mmseg.utils.ranks import in_turn
from omh_mmseg.utils.spread import evenly_spread

PROBED_ITEMS = 3
TOLERANCE = 0.05
"""Largest relative difference of probed features: far above that of devices and precisions, far below any change."""
WAIT_SECONDS = 0.2


class FeatureCache:
    """The cache of one data set under one frozen part.

    Args:
        root: Folder of all caches; this one has a folder in it, named by its fingerprint.
        dataset: Completely initialised, with deterministic items.
        part: What is cached.
        training: Whether images are padded as in training.
        fields: ``'features'``, and where wanted the part's extras, ``'mirrored'`` and the names of its views.
        images: Whether the items need the images as well.
        dtype: Of features, whatever they are of: ``'float32'``, ``'float16'`` or ``'bfloat16'``. Extras are float32.

    Attributes:
        folder: Its folder.
        fingerprint: What it belongs to.

    Raises:
        ValueError: An unknown type, a backbone that is trained, or a pipeline that draws at random.
    """

    def __init__(
        self,
        root: str | Path,
        dataset: Any,
        part: FrozenPart,
        training: bool,
        fields: Sequence[str] = (FEATURES,),
        images: bool = False,
        dtype: str = 'float32',
    ) -> None:
        if dtype not in DTYPES:
            raise ValueError(f'dtype of the feature cache must be one of {sorted(DTYPES)}; got {dtype!r}.')
        self.dataset, self.part, self.training, self.images = dataset, part, training, images
        self._refuse()
        self.fingerprint = cache_fingerprint(dataset, part.backbone, part.backbone_cfg, part.preprocessor, training)
        self.dtype = dtype
        self.folder = Path(root) / fingerprint_key(self.fingerprint, dtype)
        self.dtypes = {name: part.types.get(name, DTYPES[dtype]) for name in fields}
        names = [*fields, *([] if images else [SAMPLE])]
        file_names = {name: '-'.join(filter(None, (name, part.setting(name)))) for name in names}
        self.files = {name: FieldFile(self.folder, file, len(dataset)) for name, file in file_names.items()}

    def __len__(self) -> int:
        return len(self.dataset)

    def missing(self) -> int:
        """Items that are not complete."""
        complete = np.ones(len(self), bool)
        for file in self.files.values():
            complete &= file.present()
        return int((~complete).sum())

    def complete(
        self,
        batch_size: int = 16,
        num_workers: int = 0,
        progress: bool = True,
        verify: bool = True,
        together: bool = False,
        probes: Mapping[int, Mapping[str, Any]] | None = None,
    ) -> CachedFeatures:
        """Make what is missing or damaged, and return the data set that delivers the cache.

        Several processes may do so at once, ranks of a run among them: each makes items that no other is making.

        Args:
            batch_size: Images per forward pass.
            num_workers: Processes that load the images.
            progress: Draw progress bars on stderr.
            verify: Compare all check sums first; otherwise each when its item is read first.
            together: All ranks of a distributed run call this, deal out the batches and write them in their order: the
                files are those that one process makes.
            probes: The result of `probe`, where it is known.

        Raises:
            OSError: The disk has no room for it, or cannot be written.
            ValueError: The items are not the same at each access, or hold what cannot be cached, or the cache holds
                something else than what is computed now.
        """
        probes = self.probe() if probes is None else probes
        if verify:
            self._verify(progress)
        if self._all_missing(together):
            self._check_disk(self.needed_bytes(probes))
            self._build(batch_size, num_workers, progress, together)
        cached = CachedFeatures(self.dataset, self.files, self.dtypes, self.images)
        self._compare(cached, probes)
        return cached

    def probe(self) -> dict[int, dict[str, Any]]:
        """A few items, their contents computed now; each is loaded twice, to see whether it is the same.

        Raises:
            ValueError: It is not.
        """
        if not len(self):
            raise ValueError('there are no images to cache features of')
        chosen = evenly_spread(len(self), PROBED_ITEMS)
        probes = {}
        for item in chosen:
            loaded = []
            for seed in (0, 1):
                with seeded('probe', seed):
                    loaded.append(self.dataset[item])
                check_item(loaded[-1])
            first, second = loaded
            same = torch.equal(first['inputs'], second['inputs'])
            if SAMPLE in self.files:
                same = same and np.array_equal(self._packed(item, first), self._packed(item, second))
            if not same:
                names = [type(one).__name__ for one in transforms_of(self.dataset)]
                raise ValueError(
                    f'item {item} of the data set is another one at each access, so that its features cannot be '
                    f'cached: a transform among {names} draws at random. '
                    'Take it out, or set default_hooks.feature_cache.folder=None'
                )
            probes[item] = self._contents(item, [first], self.files)[0]
        return probes

    def passes(self) -> int:
        """Forward passes of one image that make what is missing."""
        total, together = 0, np.zeros(len(self), bool)
        for name, file in self.files.items():
            if name == MIRRORED or name.startswith(VIEW):
                total += int((~file.present()).sum())
            elif name != SAMPLE:
                together |= ~file.present()
        return total + int(together.sum())

    def needed_bytes(self, probes: Mapping[int, Mapping[str, Any]]) -> int:
        """Disk space of what is missing, from the size of a few items."""
        total = 0
        for name, file in self.files.items():
            mean = np.mean([_bytes(contents[name]).nbytes for contents in probes.values()])
            total += int((~file.present()).sum() * (mean + ALIGNMENT / 2 + RECORD.itemsize))
        return total

    def held_bytes(self) -> int:
        """Disk space of what is there."""
        return sum(file.data_path.stat().st_size for file in self.files.values() if file.data_path.is_file())

    def describe(self) -> str:
        """What `complete` would do, as text; nothing is written."""
        needed, missing = self.needed_bytes(self.probe()), self.missing()
        return (
            f'feature cache {self.folder.resolve()}: {len(self) - missing} of {len(self)} items are there '
            f'({gibibytes(self.held_bytes())}); {self.passes()} forward passes of one image and {gibibytes(needed)} of '
            f'disk space make the rest, {gibibytes(free_bytes(self.folder))} are free'
        )

    def _refuse(self) -> None:
        if not hasattr(self.dataset, 'get_data_info'):
            raise ValueError(
                f'the feature cache needs a data set with get_data_info, such as mmseg and this package have; '
                f'{type(self.dataset).__name__} has none'
            )
        names = random_transforms(transforms_of(self.dataset))
        if names:
            raise ValueError(
                f'the pipeline draws at random ({", ".join(names)}), so that there are no features to cache. Take '
                'that out of the pipeline, or set default_hooks.feature_cache.folder=None'
            )
        if any(parameter.requires_grad for parameter in self.part.backbone.parameters()):
            raise ValueError('the feature cache needs a backbone that is not trained; wrap it in FrozenBackbone')
        if self.training and getattr(self.part.preprocessor, 'batch_augments', None) is not None:
            raise ValueError('the batch_augments of the data preprocessor draw at random: no features can be cached')

    def _verify(self, progress: bool) -> None:
        """Take out the items whose content is not what was written."""
        with progress_bar(progress) as bar:
            for name, file in self.files.items():
                present = file.present().nonzero()[0].tolist()
                if not present:
                    continue
                task = bar.add_task(f'checking cached {name}', total=len(present))
                damaged = 0
                for item in present:
                    if not file.sound(item):
                        # Another process may have made it anew meanwhile.
                        file.reload(item, item + 1)
                    if not file.sound(item):
                        damaged += 1
                        file.void(item)
                    bar.advance(task)
                if damaged:
                    MMLogger.get_current_instance().warning(
                        f'{damaged} items of {file.data_path} are damaged and made anew'
                    )

    def _check_disk(self, needed: int) -> None:
        free = free_bytes(self.folder)
        if free < needed:
            raise OSError(
                errno.ENOSPC,
                f'the feature cache needs {gibibytes(needed)} more in {self.folder} for {len(self)} items of '
                f'{self.dtype}, and {gibibytes(free)} are free; make room, set another folder, or '
                "default_hooks.feature_cache.dtype='float16' for half of it",
            )

    def _build(self, batch_size: int, num_workers: int, progress: bool, together: bool) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = ProcessLock(self.folder)
        try:
            self._write_manifest()
            with progress_bar(progress) as bar:
                task = bar.add_task('feature cache', total=len(self), completed=len(self) - self.missing())
                waiting = False

                def advance() -> None:
                    bar.update(task, completed=self._done())

                while True:
                    self._round(lock, batch_size, num_workers, together, advance)
                    if not self._all_missing(together):
                        break
                    if not waiting:
                        MMLogger.get_current_instance().info(
                            f'waiting for another process that makes the rest of {self.folder}'
                        )
                    waiting = True
                    time.sleep(WAIT_SECONDS)
        finally:
            lock.close()
            for file in self.files.values():
                file.close()

    def _done(self) -> int:
        return len(self) - self.missing()

    def _all_missing(self, together: bool) -> int:
        """`missing`, with ``together`` the largest number of any rank, each of which looks anew."""
        if not together:
            return self.missing()
        for file in self.files.values():
            file.reload()
        return max(all_gather_object(self.missing()))

    def _round(
        self, lock: ProcessLock, batch_size: int, num_workers: int, together: bool, advance: Callable[[], None]
    ) -> None:
        """Make all blocks that no other process is making."""
        claims = Claims(self.files, len(self), batch_size, lock, get_dist_info() if together else (0, 1))
        loader = DataLoader(
            self.dataset,
            batch_sampler=claims,
            num_workers=num_workers,
            collate_fn=list,
            generator=torch.Generator().manual_seed(0),
        )
        blocks = self._computed(loader, claims)
        for start, stop, contents in in_turn(blocks) if together else blocks:
            for number, content in zip(range(start, stop), contents):
                for name, file in self.files.items():
                    if not file.present(number, number + 1)[0]:
                        self._put(file, number, content[name], lock)
            lock.release(start, stop)
            advance()

    def _computed(self, loader: DataLoader, claims: Claims) -> Iterator[tuple[int, int, list[dict[str, Any]]]]:
        for items in loader:
            start, stop = claims.claimed.popleft()
            # What another run has made already, such as the features without the views, is not computed again.
            lacking = [name for name, file in self.files.items() if not file.present(start, stop).all()]
            yield start, stop, self._contents(start, items, lacking)

    def _put(self, file: FieldFile, item: int, content: Tensor | np.ndarray, lock: ProcessLock) -> None:
        try:
            file.put(item, _bytes(content), tuple(content.shape), lock)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise OSError(
                error.errno,
                f'the disk of {self.folder} is full; {self._done()} of {len(self)} items of the feature cache are '
                'there and stay valid: make room and start again, or set another folder or a narrower dtype',
            ) from error

    def _contents(
        self, start: int, items: Sequence[Mapping[str, Any]], names: Collection[str]
    ) -> list[dict[str, Any]]:
        """What is written for consecutive items, by field."""
        contents: list[dict[str, Any]] = []
        for number, item in enumerate(items, start):
            check_item(item)
            contents.append({SAMPLE: self._packed(number, item)} if SAMPLE in names else {})
        images = [item['inputs'] for item in items]
        for numbers, batch in self.part.compute(images, names, self.training, start):
            for name, values in batch.items():
                for number, value in zip(numbers, self._narrowed(name, values)):
                    contents[number][name] = value
        return contents

    def _packed(self, number: int, item: Mapping[str, Any]) -> np.ndarray:
        return packed(item, self.dataset.get_data_info(number))

    def _narrowed(self, name: str, values: Tensor) -> Tensor:
        narrow = values.to(self.dtypes[name])
        if not bool(torch.isfinite(narrow).all()):
            if bool(torch.isfinite(values).all()):
                raise ValueError(
                    f'{name} up to {values.abs().max().item():g} do not fit {self.dtype}; cache them as bfloat16 or '
                    'float32'
                )
            raise ValueError(f'the backbone gives {name} that are not finite')
        return narrow.cpu().contiguous()

    def _compare(self, cached: CachedFeatures, probes: Mapping[int, Mapping[str, Any]]) -> None:
        for item, contents in probes.items():
            for name, content in contents.items():
                if name == SAMPLE:
                    same = np.array_equal(cached.fields[name].get(item)[0].numpy(), content)
                else:
                    stored, now = cached.value(name, item).double(), content.double()
                    # Another device may number the same regions of a map otherwise.
                    numbered = not content.is_floating_point()
                    same = stored.shape == now.shape and (
                        numbered or bool((stored - now).norm() <= TOLERANCE * now.norm())
                    )
                if not same:
                    raise ValueError(
                        f'the feature cache {self.folder} holds other {name} of item {item} than what the model and '
                        'the pipeline give now, though all settings agree: their code has changed. Delete the folder'
                    )

    def _described(self, name: str) -> str:
        if name == SAMPLE:
            return 'label and metadata'
        kind = str(self.dtypes[name]).removeprefix('torch.')
        return f'{kind}, {self.part.views.settings}' if name.startswith(VIEW) and self.part.views else kind

    def _write_manifest(self) -> None:
        path = self.folder / 'manifest.json'
        try:
            known = json.loads(path.read_text())['fields']
        except (OSError, ValueError, KeyError, TypeError):
            known = {}
        fields = dict(known) | {file.name: self._described(name) for name, file in self.files.items()}
        if fields == known:
            return
        content = dict(fingerprint=self.fingerprint, dtype=self.dtype, fields=fields)
        with replaced_when_complete(path) as file:
            file.write(json.dumps(content, indent=1, sort_keys=True).encode())


def _bytes(content: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(content, Tensor):
        content = content.contiguous().flatten().view(torch.uint8).numpy()
    return content
