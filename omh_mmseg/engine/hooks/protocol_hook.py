"""Logs and stores with every score the protocol that it was measured by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from omh_mmseg.evaluation.protocols import protocol_of_config
from omh_mmseg.registry import HOOKS
from omh_mmseg.utils.files import write_text


@HOOKS.register_module()
class ProtocolHook(Hook):
    """Writes ``<work_dir>/<time>/scores/val/scores.json`` (or ``test``) with the scores and their protocol.

    The protocol is the one that `apply_protocol` put into the config, else the config's own settings of pipeline and
    prediction. After a test the log has it, too.
    """

    priority = 'LOW'

    def after_val_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Store the scores of a validation over those of the one before."""
        self._write(runner, 'val', metrics or {}, iteration=runner.iter)

    def after_test_epoch(self, runner: Runner, metrics: dict[str, Any] | None = None) -> None:
        """Store and log the protocol of a test."""
        self._write(runner, 'test', metrics or {}, checkpoint=runner.cfg.get('load_from'))

    @master_only
    def _write(self, runner: Runner, split: str, metrics: dict[str, Any], **notes: Any) -> None:
        protocol = protocol_of_config(runner.cfg, split)
        if split == 'test':
            settings = ', '.join(f'{key}={value}' for key, value in protocol.items() if key != 'name')
            runner.logger.info(f'protocol {protocol["name"]}: {settings}')
        if not metrics:
            return
        content = dict(protocol=protocol, scores=metrics, **notes)
        path = Path(runner.log_dir) / 'scores' / split / 'scores.json'
        write_text(path, f'{json.dumps(content, indent=1, default=str)}\n')
