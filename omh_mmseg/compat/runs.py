"""Upstream breakage of runners and their processes."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest import mock

from omh_mmseg.launchers import set_rank_variables


@functools.cache
def separate_runs() -> None:
    """Let runs of one process share nothing.

    Range: mmengine <= 0.10.7, onedl-mmengine <= 0.10.12, which find loggers, message hubs, scopes and visualisers by
    name and name the first three, and the folder of the log, after the config and the second. Symptoms: a second run
    whose config names its visualiser like the first's (all do: ``visualizer``) writes scalars and pictures to the
    first's folder; runs that begin within one second share logger and figures; ``randomness.deterministic`` and
    ``env_cfg.cudnn_benchmark`` of one run hold for the next.
    """
    import torch
    from mmengine.runner import Runner
    from mmengine.visualization import Visualizer

    setup_env, set_randomness, build_visualizer = Runner.setup_env, Runner.set_randomness, Runner.build_visualizer
    begun: Counter[str] = Counter()
    made_deterministic: list[bool] = []

    @functools.wraps(setup_env)
    def setup(self: Any, env_cfg: Any) -> None:
        torch.backends.cudnn.benchmark = False
        setup_env(self, env_cfg)
        begun[self._timestamp] += 1
        if begun[self._timestamp] > 1:
            self._timestamp += f'_{begun[self._timestamp]}'

    @functools.wraps(set_randomness)
    def seed(self: Any, seed: int | None, diff_rank_seed: bool = False, deterministic: bool = False) -> None:
        if made_deterministic and not deterministic:
            made_deterministic.clear()
            torch.backends.cudnn.deterministic = False
            torch.use_deterministic_algorithms(False)
        set_randomness(self, seed, diff_rank_seed, deterministic)
        if deterministic:
            made_deterministic.append(True)

    @functools.wraps(build_visualizer)
    def build(self: Any, visualizer: Any = None) -> Any:
        if isinstance(visualizer, dict) and Visualizer.check_instance_created(visualizer.get('name', '')):
            visualizer = {**visualizer, 'name': f'{visualizer["name"]}_{self.experiment_name}'}
        return build_visualizer(self, visualizer)

    Runner.setup_env, Runner.set_randomness, Runner.build_visualizer = setup, seed, build


@functools.cache
def write_configs_of_started_runs() -> None:
    """Let a runner write its config into the work directory once its training begins, or where none is.

    Range: every mmengine, which does so while the runner is built. Symptoms: a run that is refused, as its checkpoint
    or data do not fit, has replaced the config of the run that the work directory is of; so has every test of that run,
    by a config with the protocol of the test.
    """
    from mmengine.runner import Runner

    dump, call = Runner.dump_config, Runner.call_hook

    @functools.wraps(dump)
    def dump_config(self: Any) -> None:
        if hasattr(self, '_config_is_due'):
            dump(self)
        else:
            self._config_is_due = True

    @functools.wraps(call)
    def call_hook(self: Any, fn_name: str, **options: Any) -> None:
        call(self, fn_name, **options)
        if fn_name in ('before_train', 'before_val', 'before_test') and getattr(self, '_config_is_due', False):
            self._config_is_due = False
            if fn_name == 'before_train' or not any(name.endswith('.py') for name in os.listdir(self.work_dir)):
                dump(self)

    Runner.dump_config, Runner.call_hook = dump_config, call_hook


@functools.cache
def end_workers_with_runs() -> None:
    """End the processes that load data with the run that they load for.

    Range: every mmengine with torch >= 1.7. Symptom: persistent workers live on until Python collects the runner, which
    happens while the next run of the process is built, and then takes 5 seconds for each of them.
    """
    from mmengine.runner import Runner

    call = Runner.call_hook

    @functools.wraps(call)
    def call_hook(self: Any, fn_name: str, **options: Any) -> None:
        call(self, fn_name, **options)
        if fn_name == 'after_run':
            for loop in (self._train_loop, self._val_loop, self._test_loop):
                owners: list[Any] = [getattr(loop, name, None) for name in ('dataloader_iterator', 'dataloader')]
                for owner in owners:
                    iterator: Any = getattr(owner, '_iterator', None)
                    if hasattr(iterator, '_shutdown_workers'):
                        iterator._shutdown_workers()
                        owner._iterator = None

    Runner.call_hook = call_hook


@functools.cache
def distribute_without_gpu() -> None:
    """Let mmengine start processes that talk over gloo where there is no accelerator, under every launcher.

    Range: mmengine <= 0.10.7, onedl-mmengine <= 0.10.12. Symptoms: ``module 'torch._C' has no attribute
    '_cuda_setDevice'`` or ``Found no NVIDIA driver`` from ``init_dist``, whatever the back end; a bare ``KeyError``
    where a launcher's variables are missing; a start that waits for a machine called ``not found`` where Slurm's
    scontrol is absent; under MPI, ranks that look for the GPU of rank 0, as ``LOCAL_RANK`` is not set. With an
    accelerator the process group is mmengine's own.
    """
    import torch
    from mmengine.device import get_device
    from mmengine.dist import utils

    on_processors = utils._init_dist_pytorch

    def replacement(launcher: str, original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def start(backend: str, **options: Any) -> None:
            set_rank_variables(launcher)
            if get_device() != 'cpu':
                original(backend, **options)
                return
            port = options.pop('port', None)
            if port is not None:
                os.environ['MASTER_PORT'] = str(port)
            with mock.patch.object(torch.cuda, 'set_device'):
                on_processors('gloo' if backend == 'nccl' else backend, **options)

        return start

    for launcher in ('pytorch', 'slurm', 'mpi'):
        name = f'_init_dist_{launcher}'
        setattr(utils, name, replacement(launcher, getattr(utils, name)))


@functools.cache
def wrap_models_without_gpu() -> None:
    """Let mmengine's runner wrap a model that is on processors for a distributed run.

    Range: mmengine <= 0.10.7, onedl-mmengine <= 0.10.12. Symptom: ``DistributedDataParallel device_ids and
    output_device arguments only work with ... GPU modules``, as the runner always names a GPU.
    """
    from mmengine.model import MMDistributedDataParallel

    original = MMDistributedDataParallel.__init__

    @functools.wraps(original)
    def initialise(self: Any, module: Any, *args: Any, **options: Any) -> None:
        if all(parameter.device.type == 'cpu' for parameter in module.parameters()):
            options['device_ids'] = None
        original(self, module, *args, **options)

    MMDistributedDataParallel.__init__ = initialise
