"""Peak memory of a computation, each measured in a process of its own."""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

MIB = 2**20
GIB = 2**30


def peak_rise(run: Callable[[], object]) -> int:
    """Bytes by which the resident memory of this process rises at its peak while something runs.

    Linux allows the high-water mark to be reset, so that what came before does not hide the rise; elsewhere the rise of
    ``ru_maxrss`` is taken. Meaningful in a fresh process only.
    """
    try:
        Path('/proc/self/clear_refs').write_text('5')
        before = _resident('VmRSS')
        run()
        return _resident('VmHWM') - before
    except OSError:
        unit = 1 if sys.platform == 'darwin' else 1024
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run()
        return unit * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def tensor_peak(run: Callable[[], object]) -> int:
    """Bytes that the tensors made by something occupy at its peak, by torch's profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / 'trace.json'
        profile.export_chrome_trace(str(trace))
        events = [event for event in json.loads(trace.read_text())['traceEvents'] if event.get('name') == '[memory]']
    held = peak = 0
    for event in sorted(events, key=lambda event: event['ts']):
        held += event['args']['Bytes']
        peak = max(peak, held)
    return peak


def rise_on(device: torch.device | str, run: Callable[[], object]) -> int:
    """Bytes by which the peak of a device's memory rises while something runs: of the allocator on a GPU."""
    device = torch.device(device)
    if device.type != 'cuda':
        return peak_rise(run)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def add_apart_option(options: argparse.ArgumentParser) -> None:
    """The option by which a benchmark calls itself to measure cases apart; see `measure_apart`."""
    options.add_argument('--apart', help=argparse.SUPPRESS)


def measured_apart(args: argparse.Namespace, measure: Callable[..., Mapping[str, Any]]) -> bool:
    """Print the figures of the cases that ``--apart`` names, if it does; whether it did.

    Each case runs in a process forked from one that has computed nothing, and prints one line of JSON.
    """
    if args.apart is None:
        return False
    for case in json.loads(args.apart):
        child = os.fork()
        if child == 0:
            try:
                print(json.dumps(measure(*case)), flush=True)
            except Exception:
                traceback.print_exc()
            os._exit(0)
        os.waitpid(child, 0)
    return True


def measure_apart(script: str, cases: Sequence[Sequence[Any]], hold: bool = False) -> list[dict[str, Any]]:
    """Measure each case in a process of its own.

    Args:
        script: A benchmark that hands its cases to `measured_apart`.
        cases: Arguments of the measurement, of types that JSON knows.
        hold: Whether the allocator may hold freed memory, as it does by default, which is faster. Without it the peak
            is that of live memory, not of the allocator's reserve.
    """
    # A process that has asked the CUDA runtime for devices cannot fork others that use them; NVML may be asked.
    settings = dict(PYTORCH_NVML_BASED_CUDA_CHECK='1')
    if not hold:
        settings |= dict(MALLOC_MMAP_THRESHOLD_='65536', MALLOC_TRIM_THRESHOLD_='0')
    command = [sys.executable, script, '--apart', json.dumps(cases)]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]
    if done.returncode or len(results) != len(cases):
        raise RuntimeError(f'{Path(script).name} measured {len(results)} of {len(cases)} cases apart:\n{done.stderr}')
    return results


def _resident(key: str) -> int:
    match = re.search(rf'{key}:\s+(\d+) kB', Path('/proc/self/status').read_text())
    if match is None:
        raise OSError(f'/proc/self/status has no {key}')
    return 1024 * int(match[1])
