"""The only place that knows of upstream breakage: each item names its version range and its symptom."""

from __future__ import annotations

import functools
from contextlib import nullcontext
from importlib import import_module

from omh_mmseg.compat.checkpoints import (
    allow_checkpoint_classes,
    download_checkpoints_by,
    history_statistic,
    read_checkpoints_as_data,
    write_checkpoints_completely,
)
from omh_mmseg.compat.configs import find_configs_in_no_folder, find_models_by
from omh_mmseg.compat.imports import (
    alias_channel_conversion,
    compiled_operators_stub,
    import_yapf,
    keep_drop_probability_plain,
    lay_out_configs_by_any_grammar,
    quiet_import,
    repair_torchvision,
)
from omh_mmseg.compat.inferencers import draw_pictures_by
from omh_mmseg.compat.runs import (
    distribute_without_gpu,
    end_workers_with_runs,
    separate_runs,
    wrap_models_without_gpu,
    write_configs_of_started_runs,
)
from omh_mmseg.stack import check_stack

__all__ = [
    'alias_channel_conversion',
    'allow_checkpoint_classes',
    'apply',
    'compiled_operators_stub',
    'distribute_without_gpu',
    'end_workers_with_runs',
    'download_checkpoints_by',
    'draw_pictures_by',
    'find_configs_in_no_folder',
    'find_models_by',
    'history_statistic',
    'import_yapf',
    'keep_drop_probability_plain',
    'lay_out_configs_by_any_grammar',
    'quiet_import',
    'read_checkpoints_as_data',
    'repair_torchvision',
    'separate_runs',
    'wrap_models_without_gpu',
    'write_checkpoints_completely',
    'write_configs_of_started_runs',
]


@functools.cache
def apply() -> None:
    """Check the installed stack and make it importable; further calls do nothing.

    Runs before anything of mmseg or mmpretrain is imported from this package.

    Raises:
        StackError: See :func:`check_stack`.
    """
    family = check_stack()
    repair_torchvision()
    with quiet_import(), compiled_operators_stub() if family == 'openmmlab' else nullcontext():
        for module in ('mmseg.models', 'mmseg.datasets', 'mmpretrain.models'):
            import_module(module)
    alias_channel_conversion()
    find_configs_in_no_folder()
    lay_out_configs_by_any_grammar()
    allow_checkpoint_classes()
    read_checkpoints_as_data()
    write_checkpoints_completely()
    write_configs_of_started_runs()
    separate_runs()
    end_workers_with_runs()
    keep_drop_probability_plain()
    distribute_without_gpu()
    wrap_models_without_gpu()
