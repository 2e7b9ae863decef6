"""Segment images from Python: paths, arrays, tensors, Pillow images, lists and folders, at every level."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmseg.structures import SegDataSample
from torch import Tensor

from omh_mmseg.apis.result_folders import leave_out_results
from omh_mmseg.datasets.base import run_pipeline
from omh_mmseg.datasets.images.formats import describe_suffixes, image_suffixes
from omh_mmseg.datasets.images.listing import Listing, list_images, tell_skipped
from omh_mmseg.datasets.images.load_image import reader_of, with_own_loader
from omh_mmseg.datasets.images.reader import ImageReader, Picture
from omh_mmseg.evaluation.heads import field_of
from omh_mmseg.evaluation.protocols import LABELS, apply_protocol
from omh_mmseg.models.segmentors import UnsupervisedSegmentor
from omh_mmseg.registry import DATASETS, MODELS
from omh_mmseg.structures.assignment import CLUSTERS
from omh_mmseg.structures.provenance import record_of
from omh_mmseg.transport import Hierarchy
from omh_mmseg.utils.checks import ranges
from omh_mmseg.utils.config import building, check_checkpoint, read_config, replace_settings
from omh_mmseg.utils.dataset_configs import innermost_datasets
from omh_mmseg.utils.devices import check_device, default_device
from omh_mmseg.utils.work_dirs import checkpoint_file, resolve_run


@dataclass(frozen=True)
class Segmentation:
    """What a model says about one image.

    Attributes:
        path: File of the image; None for arrays.
        clusters: Cluster of every pixel, int64 (H, W), by head: ``probe`` (the host's), ``linear`` (classes), and with
            OMH ``level1`` (coarsest), ``level2``, ...
        merged: The finer levels with each cluster replaced by its ancestor of level 1, likewise.
        classes: Class of every pixel, -1 for none, of the heads whose clusters have been matched to classes, and of
            ``linear``.
        metainfo: Of the data sample: sizes, scale and crop.
    """

    path: str | None
    clusters: dict[str, np.ndarray]
    merged: dict[str, np.ndarray] = field(default_factory=dict)
    classes: dict[str, np.ndarray] = field(default_factory=dict)
    metainfo: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Examined:
    """A segmentation and what it came from, of one image.

    Attributes:
        segmentation: The result.
        inputs: Normalised and padded image (1, 3, H, W).
        code: What the prediction started from, (1, D, h, w).
        size: Height and width of the image in ``inputs``, without padding.
        seconds: Time from ``inputs`` to the code.
    """

    segmentation: Segmentation
    inputs: Tensor
    code: Tensor
    size: tuple[int, int]
    seconds: float = 0.0


def init_model(
    config: str | os.PathLike[str] | Config,
    checkpoint: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    options: Mapping[str, Any] | None = None,
    accept_differences: bool = False,
) -> UnsupervisedSegmentor:
    """Build a config's model with the weights of a checkpoint, ready to predict.

    Args:
        config: File, work directory of a run, or content.
        checkpoint: File, address or work directory; None where ``config`` is a work directory, which then stands for
            both.
        device: By default the first GPU, else the CPU.
        options: Settings that replace those of the config.
        accept_differences: Use the weights with other settings than those of their run; a warning names them.

    Returns:
        The model in evaluation mode, with ``cfg`` and ``dataset_meta`` as mmseg's functions expect them.

    Raises:
        FileNotFoundError: No such file; names similar ones.
        ValueError: The weights do not fill the config's model, see `fill_model`, or there is no such device.
        ProvenanceError: The run of the weights had another normalisation, image size or backbone than the config.
    """
    config, checkpoint = _config_and_checkpoint(config, checkpoint, options)
    device = default_device() if device is None else device
    check_device(device)
    check_checkpoint(checkpoint)
    init_default_scope(config.get('default_scope', 'mmseg'))
    with building():
        model = MODELS.build(config.model)
    loaded = load_checkpoint(model, checkpoint, map_location='cpu')
    model.dataset_meta = loaded.get('meta', {}).get('dataset_meta') or _metainfo(config)
    model.note_run(checkpoint, record_of(loaded), accept_differences)
    model.cfg = config
    return model.to(device).eval()


class SegmentationInferencer:
    """Segments images with a trained model.

    Args:
        config: File or content of the config, or the work directory of a run.
        checkpoint: File or address of the weights; None where ``config`` is a work directory.
        device: By default the first GPU, else the CPU.
        levels: OMH levels to predict beside the probe; all by default.
        protocol: Resize, crop, flip and CRF of a protocol, see `omh_mmseg.structures.protocols.resolve`; by default
            what the config's test pipeline and ``test_cfg`` say.
        flip: Switches flip averaging on or off.
        crf: Switches the dense CRF on or off; a dict has keywords of `DenseCRF`.
        batch_size: Images of one size that go through the network together.
        options: Settings that replace those of the config.
        accept_differences: See `init_model`. A protocol sets the size of images on purpose, which is no difference.

    Attributes:
        model: The model.
        classes: Names of the classes; empty where the checkpoint names none.
        hierarchy: Of the OMH levels; None without OMH.
        reader: Reads the images, as the config's pipeline says.

    Example::

        inferencer = SegmentationInferencer('work_dirs/omh_stego_vit-s8_coco')
        result = inferencer('photo.jpg')
        result.clusters['level2'], result.merged['level2'], result.classes.get('probe')
    """

    @ranges(levels='[1, 32]', batch_size='[1, 65536]')
    def __init__(
        self,
        config: str | os.PathLike[str] | Config,
        checkpoint: str | os.PathLike[str] | None = None,
        device: str | torch.device | None = None,
        levels: Sequence[int] | None = None,
        protocol: str | None = None,
        flip: bool | None = None,
        crf: bool | Mapping[str, Any] | None = None,
        batch_size: int = 1,
        options: Mapping[str, Any] | None = None,
        accept_differences: bool = False,
    ) -> None:
        config, checkpoint = _config_and_checkpoint(config, checkpoint, options)
        if protocol is not None:
            apply_protocol(config, protocol)
        test_cfg = dict(config.model.get('test_cfg') or {})
        if levels is not None:
            test_cfg['levels'] = list(levels)
        if flip is not None:
            test_cfg['flip'] = flip
        if crf is not None:
            test_cfg['crf'] = (dict(crf) if isinstance(crf, Mapping) else {}) if crf is not False else None
        config.model.test_cfg = test_cfg
        self.batch_size = batch_size
        self.model = init_model(config, checkpoint, device, accept_differences=accept_differences)
        self.classes: tuple[str, ...] = tuple((self.model.dataset_meta or {}).get('classes') or ())
        self.hierarchy: Hierarchy | None = None if self.model.omh_head is None else self.model.omh_head.hierarchy()
        steps = [dict(step) for step in config.test_pipeline if not LABELS.fullmatch(step['type'])]
        with building():
            self._pipeline = Compose(steps)
        self._pipeline.transforms = with_own_loader(self._pipeline.transforms)
        # A loader that is not ours reads by the default.
        self.reader: ImageReader = reader_of(self._pipeline.transforms) or ImageReader()

    def __call__(self, images: Picture | Sequence[Picture]) -> Segmentation | list[Segmentation]:
        """Segment an image, or each of a list, folder or batch.

        Args:
            images: A picture as `ImageReader.read` takes it: a path, an array (H, W, 3) with blue first as OpenCV and
                mmseg have it or (H, W), a tensor (3, H, W) with red first as torchvision has it, or a Pillow image.
                Or a list of them, a folder, searched recursively, or a batch (N, ...) of arrays or a tensor of one.

        Returns:
            One result for one image, else a list in the order given (folders: sorted by path).

        Raises:
            FileNotFoundError: No such file, or a folder without images.
            OSError: A file that is no image.
            ValueError: An array or tensor of another kind, or values without a known range.
        """
        if isinstance(images, (str, os.PathLike)) and os.path.isdir(images):
            return list(self.iterate(find_images(images)))
        if isinstance(images, Iterable) and not isinstance(images, (str, np.ndarray, Tensor)):
            return list(self.iterate(images))
        if isinstance(images, (np.ndarray, Tensor)) and images.ndim == 4:
            return list(self.iterate(iter(images)))
        (result,) = self.iterate([images])
        return result

    def iterate(
        self, images: Iterable[Picture], on_error: Callable[[Picture, Exception], None] | None = None
    ) -> Iterator[Segmentation]:
        """Segment images one batch at a time, for more results than fit into memory; see `__call__`.

        Args:
            images: Pictures, see `__call__`.
            on_error: Told of images that cannot be read, which are then left out; by default the error is raised.
        """
        batch: list[dict[str, Any]] = []
        paths: list[str | None] = []
        for image in images:
            try:
                item = self._load(image)
            except (OSError, ValueError) as error:
                if on_error is None:
                    raise
                on_error(image, error)
                continue
            if batch and (len(batch) == self.batch_size or item['inputs'].shape != batch[0]['inputs'].shape):
                yield from self._predict(batch, paths)
                batch, paths = [], []
            batch.append(item)
            paths.append(os.fspath(image) if isinstance(image, (str, os.PathLike)) else None)
        if batch:
            yield from self._predict(batch, paths)

    @torch.no_grad()
    def examine(self, image: Picture, change: Callable[[Tensor, np.ndarray], Tensor] | None = None) -> Examined:
        """Segment one picture, and keep what the prediction came from.

        Args:
            image: See `__call__`.
            change: From the code (1, D, h, w) and the pixels of the network's input (H, W, 3), uint8, RGB, without
                padding, to the code that is predicted from; by default the code itself.

        Raises:
            FileNotFoundError: No such file.
            OSError: A file that is no image.
            ValueError: See `__call__`.
        """
        item = self._load(image)
        batch = {key: [item[key]] for key in ('inputs', 'data_samples')}
        data = self.model.data_preprocessor(batch, False)
        inputs, samples = data['inputs'], data['data_samples']
        height, width = item['inputs'].shape[-2:]
        start = time.perf_counter()
        code = self.model.prediction_code(inputs)
        if code.is_cuda:
            torch.cuda.synchronize(code.device)
        seconds = time.perf_counter() - start
        if change is not None:
            code = change(code, item['inputs'].permute(1, 2, 0).numpy()[..., ::-1])
        (sample,) = self.model.predict_from_code(code, inputs, samples)
        path = os.fspath(image) if isinstance(image, (str, os.PathLike)) else None
        return Examined(self._result(sample, path), inputs, code, (height, width), seconds)

    @property
    def heads(self) -> dict[str, int]:
        """Heads of the results and their numbers of clusters; no ``linear`` of a run that never saw a label."""
        sizes = dict(probe=self.model.num_classes)
        if self.model.predictor.linear_probe(self.model) is not None:
            sizes['linear'] = self.model.num_classes
        levels = [] if self.hierarchy is None else self.hierarchy.level_sizes
        return sizes | {f'level{level}': levels[level - 1] for level in self.model.predictor.levels(self.model)}

    def assignment_of(self, head: str) -> np.ndarray | None:
        """Class of each cluster of a head, -1 for none; None where they have not been matched."""
        if head == 'linear':
            return np.arange(self.model.num_classes)
        known = self.model.assignment.as_dict().get(field_of(head))
        return None if known is None else np.asarray(known)

    def metainfo_of(self, image: Picture) -> dict[str, Any]:
        """What the pipeline makes of a picture: sizes, scale and crop."""
        return dict(self._load(image)['data_samples'].metainfo)

    def _load(self, image: Picture) -> dict[str, Any]:
        if not isinstance(image, (str, os.PathLike)):
            return self._pipeline(dict(img=image))
        path = os.fspath(image)
        if not os.path.isfile(path):
            raise FileNotFoundError(f'there is no image {path} (looked from {Path.cwd()}).')
        return run_pipeline(self._pipeline, dict(img_path=path))

    def _predict(self, batch: Sequence[dict[str, Any]], paths: Sequence[str | None]) -> list[Segmentation]:
        data = {key: [item[key] for item in batch] for key in ('inputs', 'data_samples')}
        with torch.no_grad():
            samples = self.model.test_step(data)
        return [self._result(sample, path) for sample, path in zip(samples, paths)]

    def _result(self, sample: SegDataSample, path: str | None) -> Segmentation:
        fields = {head: field_of(head) for head in self.heads}
        if 'probe' in fields and CLUSTERS in sample:
            fields['probe'] = CLUSTERS
        clusters = {head: sample.get(name).data[0].cpu().numpy() for head, name in fields.items()}
        merged, classes = {}, {}
        for head, labels in clusters.items():
            assignment = self.assignment_of(head)
            if assignment is not None:
                classes[head] = assignment[labels]
            if self.hierarchy is not None and head.startswith('level') and head != 'level1':
                merged[head] = self.hierarchy.ancestors(int(head[5:])).numpy()[labels]
        return Segmentation(path, clusters, merged, classes, dict(sample.metainfo))


def find_images(folder: str | os.PathLike[str]) -> list[str]:
    """Paths of the images below a folder, sorted; what is left out of them is told once.

    Raises:
        FileNotFoundError: No such folder, or no image in it.
        ValueError: Two images share a stem, which names their results.
    """
    listing = list_folder(folder)
    tell_skipped(folder, listing)
    return sorted(listing.images.values())


def list_folder(folder: str | os.PathLike[str]) -> Listing:
    """The images below a folder, and what is left out with the reasons; see `find_images`."""
    root = Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f'there is no folder {root} (looked from {Path.cwd()}).')
    listing = leave_out_results(root, list_images(root))
    if not listing.images:
        there = listing.describe_skipped() or 'it is empty'
        read = describe_suffixes(image_suffixes())
        raise FileNotFoundError(f'there are no images in {root}: {there}. Pillow reads files ending in {read}.')
    return listing


def _config_and_checkpoint(
    config: str | os.PathLike[str] | Config,
    checkpoint: str | os.PathLike[str] | None,
    options: Mapping[str, Any] | None,
) -> tuple[Config, str]:
    if isinstance(config, Config):
        if checkpoint is None:
            raise ValueError('a config without the work directory of its run needs a checkpoint')
        checkpoint = checkpoint_file(checkpoint)
        if options:
            replace_settings(config, options)
    else:
        path, checkpoint = resolve_run(config, checkpoint)
        config = read_config(path, options)
    absent = [name for name in ('model', 'test_pipeline', 'test_dataloader') if not config.get(name)]
    if absent:
        raise ValueError(f'the config has no {" and no ".join(absent)}, which predictions need')
    return config, checkpoint


def _metainfo(config: Config) -> dict[str, Any]:
    """Names and colours as the data set of the config gives them, without looking for its files."""
    dataset, *_ = innermost_datasets(config.test_dataloader.dataset).values()
    published = getattr(DATASETS.get(dataset['type']), 'METAINFO', None) or {}
    given = dataset.get('metainfo') or {}
    return {key: given.get(key) or published.get(key) for key in ('classes', 'palette')}
