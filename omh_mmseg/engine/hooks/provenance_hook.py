"""Lets a checkpoint say what it was trained with, and a run use it with nothing else."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop

from omh_mmseg.checkpoint_files import TRAINED_WITH
from omh_mmseg.engine.models import find_model
from omh_mmseg.models.prediction.provenance import describe_classes, describe_model
from omh_mmseg.models.segmentors import UnsupervisedSegmentor
from omh_mmseg.models.utils.loaded_weights import read_lacking_backbone
from omh_mmseg.registry import HOOKS
from omh_mmseg.structures.provenance import PREDICTIONS, TRAINING, compare_with_run, differing_settings, record_of
from omh_mmseg.utils.digests import backbone_digest

STARTED_FROM = ('normalisation', 'padding', 'reading', 'backbone')


@HOOKS.register_module()
class ProvenanceHook(Hook):
    """Writes into each checkpoint what its predictions depend on, and compares it where a run loads a checkpoint.

    That are the normalisation, the steps that resize and crop images, the backbone's config and the digest of its
    weights, the classes, and settings of the heads that are not in their weights; plain data below
    ``meta.trained_with``. A test, or a training that is resumed, with other settings is refused; a protocol by name
    sets the size on purpose. A new training that starts from the weights (``load_from``) has settings of its own: one
    warning names those that its features no longer share. See `omh_mmseg.structures.provenance`.
    """

    # Before `CheckpointCheckHook`, which fills the model of a training.
    priority = 'HIGHEST'

    def __init__(self) -> None:
        self._weights: str | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Add the record."""
        model = _segmentor(runner)
        if model is None:
            return
        frozen = not any(parameter.requires_grad for parameter in model.backbone.parameters())
        record = describe_model(model, runner.cfg, self._weights)
        self._weights = record['weights'] if frozen else None
        meta = checkpoint.setdefault('meta', {})
        meta[TRAINED_WITH] = record | describe_classes(meta.get('dataset_meta'))

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compare the record with the run.

        Raises:
            ProvenanceError: In a test or a resumed training, settings differ.
        """
        model = _segmentor(runner)
        if model is None:
            return
        record, name = record_of(checkpoint), _name(runner, checkpoint)
        if isinstance(runner._train_loop, BaseLoop):
            self._compare_training(runner, model, name, record)
            return
        current = {} if record is None else self._describe_test(runner, model, checkpoint)
        for loop in (runner._test_loop, runner._val_loop):
            if isinstance(loop, BaseLoop):
                current |= describe_classes(getattr(loop.dataloader.dataset, 'metainfo', None))
                break
        compare_with_run(name, record, current, PREDICTIONS)

    @staticmethod
    def _describe_test(runner: Runner, model: Any, checkpoint: dict[str, Any]) -> dict[str, Any]:
        # The model is filled after this hook, and a backbone that the checkpoint lacks holds random weights until then.
        state = checkpoint.get('state_dict', checkpoint)
        weights = backbone_digest(state)
        own = weights is None and read_lacking_backbone(model, state)
        record = describe_model(model, runner.cfg, weights)
        return record if own or weights else record | dict(weights=None)

    def _compare_training(self, runner: Runner, model: Any, name: str, record: dict[str, Any] | None) -> None:
        # The backbone has the weights of its own checkpoint here; those of the run's checkpoint take their place.
        current = {} if record is None else describe_model(model, runner.cfg)
        if getattr(model.backbone, 'checkpoint', None) is None:
            current['weights'] = None
        if runner._resume:
            current |= describe_classes(getattr(runner.train_dataloader.dataset, 'metainfo', None))
            compare_with_run(name, record, current, TRAINING)
            return
        found = [] if record is None else differing_settings(record, current, STARTED_FROM)
        if found:
            runner.logger.warning(
                f'the weights of {name}, which this run starts from, were trained with other settings: '
                f'{"; ".join(found)}'
            )


def _segmentor(runner: Runner) -> UnsupervisedSegmentor | None:
    """The model, also of one in a wrapper (distributed, test-time augmentation); None for another kind."""
    return find_model(runner.model, lambda one: isinstance(one, UnsupervisedSegmentor))


def _name(runner: Runner, checkpoint: dict[str, Any]) -> str:
    metadata = getattr(checkpoint.get('state_dict'), '_metadata', None) or {}
    name, _ = metadata.get('', {}).get(TRAINED_WITH) or (runner._load_from or 'the checkpoint', None)
    return name
