"""Use an installed omh_mmseg from an empty folder, by nothing but its entry points and names; see release.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import omh_mmseg
from omh_mmseg import shipped

FILES = ('py.typed', 'assets/vit-t8_demo.pth', 'assets/checkpoints/omh_stego_vit-t8_demo.pth',
         'assets/checkpoints/stego_vit-t8_demo.pth', '.mim/model-index.yml', '.mim/configs/metafiles/stego.yml',
         '.mim/configs/study/hosts.py', '.mim/tools/train.py', '.mim/tools/dist_train.sh')  # fmt: skip
CONFIG = 'omh_smooseg_vit-t8_demo'
NEEDS_INDEX = 'omh_stego_vit-t8_demo'
SHORT = ('train_cfg.max_iters=2', 'train_cfg.val_interval=2', 'model.omh_head.reach.begin=1')
IN_PROCESS = tuple(f'{split}_dataloader.{key}' for split in ('train', 'val', 'test')
                   for key in ('num_workers=0', 'persistent_workers=False'))  # fmt: skip
FEW = tuple(f'{split}_dataloader.dataset.counts.{count}' for split in ('train', 'val', 'test')
            for count in ('train=12', 'val=4'))  # fmt: skip


def run(program: str, *words: object, status: int = 0) -> str:
    """Run a program of this environment; what it printed."""
    command = [str(Path(sys.executable).parent / program), *map(str, words)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == status, f'{" ".join(command)} ended with {done.returncode}:\n{done.stdout[-4000:]}'
    print(f'{program} {" ".join(map(str, words))[:60]}', flush=True)
    return done.stdout


def main() -> None:
    """Check, with an assertion for what is not as it should be."""
    folder = Path(omh_mmseg.__file__).parent
    assert folder.is_relative_to(sys.prefix) and not shipped.in_checkout(), folder
    absent = [name for name in FILES if not (folder / name).is_file()]
    assert not absent, f'not in the wheel: {absent}'
    names = omh_mmseg.list_configs()
    assert {CONFIG, NEEDS_INDEX} <= set(names) and all(Path(omh_mmseg.config_path(name)).is_file() for name in names)
    for name in shipped.ENTRY_POINTS:
        text = run(f'omh-{name}', '--help')
        assert 'tools/' not in text, text
    assert 'usage' in run('python', '-m', 'omh_mmseg.commands.analysis_tools.hierarchy', '--help')
    run('python', '-c', 'import omh_mmseg.transport, sys; assert "mmengine" not in sys.modules')
    run('python', '-c', f'import omh_mmseg, mmengine.hub as hub; hub.get_config("omh_mmseg::{CONFIG}.py")')
    assert 'omh-test: there is no checkpoint absent.pth' in run('omh-test', CONFIG, 'absent.pth', status=1)
    assert '6 segmented' in run('omh-predict', '--demo', '--device', 'cpu')
    run('omh-explore', '--demo', '--device', 'cpu')
    run('omh-train', CONFIG, '--work-dir', 'run', '--cfg-options', *SHORT, *IN_PROCESS, *FEW)
    run('omh-test', 'run')
    pictures = sorted(Path('predictions/scenes').iterdir())[:2]
    assert 'segmented' in run('omh-predict', 'run', *pictures, '--device', 'cpu')
    built = 'default_hooks.neighbour_index.build=False'
    text = run('omh-train', NEEDS_INDEX, '--work-dir', 'other', '--cfg-options', built, *IN_PROCESS, status=1)
    assert f'omh-prepare neighbours {NEEDS_INDEX}' in text, text
    print(f'omh_mmseg {omh_mmseg.__version__} works as installed in {folder}')


if __name__ == '__main__':
    main()
