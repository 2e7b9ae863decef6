"""Train the checkpoints that the package ships, and write what they score into the metafile.

OMP_NUM_THREADS=1 python .dev_scripts/train_demo_checkpoints.py --work-dir work_dirs/shipped
python .dev_scripts/model_zoo.py

Writes omh_mmseg/assets/checkpoints/NAME.pth for every config of `omh_mmseg.shipped.TRAINED` and their entries `Weights`
and `Trained` in configs/metafiles/stego.yml. The demo downloads nothing; runs that have ended in the work directory are
taken as they are.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

import torch  # noqa: E402

from omh_mmseg.shipped import PACKAGE_SCHEME, TRAINED, asset_path, config_path  # noqa: E402
from omh_mmseg.study.source_state import source_commit  # noqa: E402
from omh_mmseg.utils.files import replaced_when_complete, write_text  # noqa: E402

METAFILE = REPOSITORY / 'configs' / 'metafiles' / 'stego.yml'
NOTE = 'shipped.json'
LEFT_OUT = ('backbone.', 'iteration')
"""The frozen backbone has a file of its own; a step counter is of a training."""
KEPT = ('dataset_meta', 'trained_with', 'seed', 'iter')
"""Of the checkpoint's ``meta``: names of the classes, what the weights fit, and where they come from."""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/shipped'), help='folder of the runs')
    parser.add_argument('--seed', type=int, default=0, help='of both runs')
    args = parser.parse_args()
    text, commit = METAFILE.read_text(), source_commit()
    for name in TRAINED:
        work_dir = args.work_dir / name
        if not (work_dir / NOTE).is_file():
            write_text(work_dir / NOTE, json.dumps(train(name, work_dir, args.seed) | dict(commit=commit)))
        note = json.loads((work_dir / NOTE).read_text())
        address = f'{PACKAGE_SCHEME}checkpoints/{name}.pth'
        write_checkpoint(work_dir, asset_path(address), note['commit'])
        text = with_entry(text, name, address, note)
        print(f'{asset_path(address)}: {asset_path(address).stat().st_size / 1e6:.2f} MB, {note}')
    write_text(METAFILE, text)


def train(name: str, work_dir: Path, seed: int) -> dict[str, Any]:
    """Train a config; its seed and scores in percent."""
    from omh_mmseg.engine import launch
    from omh_mmseg.preparation.neighbours import prepare_neighbours

    config = launch.load_config(config_path(name), str(work_dir), options={'randomness.seed': seed})
    prepare_neighbours(config, force=True, if_missing=True)
    runner = launch.build_runner(config)
    runner.train()
    results = runner.val_evaluator.metrics[0].last_result
    scores = {
        f'{titled(head)} {kind}': round(float(value), 2)
        for head, result in results.items()
        for kind, value in (('mIoU', result.mean_iou), ('accuracy', result.pixel_accuracy))
    }
    return dict(seed=seed, figures=scores)


def titled(head: str) -> str:
    """``Level 1`` of ``level1``, ``Probe`` of ``probe``."""
    return re.sub(r'(\d)', r' \1', head).capitalize()


def write_checkpoint(work_dir: Path, path: Path, commit: str) -> None:
    """Write what predictions need of a run's last checkpoint."""
    from omh_mmseg.utils.work_dirs import checkpoint_file

    content = torch.load(checkpoint_file(work_dir), map_location='cpu', weights_only=False)
    state = {
        key: value.clone() for key, value in content['state_dict'].items() if not key.startswith(LEFT_OUT)
    }
    meta = {key: content['meta'][key] for key in KEPT} | dict(commit=commit)
    with replaced_when_complete(path) as file:
        torch.save(dict(meta=meta, state_dict=state), file)


def with_entry(text: str, name: str, address: str, note: dict[str, Any]) -> str:
    """The metafile with a config's lines ``Weights`` and ``Trained``, which are one line each."""
    before, mark, rest = text.partition(f'- Name: {name}\n')
    if not mark:
        raise ValueError(f'{METAFILE} has no entry {name}')
    entry, again, after = rest.partition('\n- Name: ')
    kept = [line for line in entry.rstrip('\n').splitlines() if not re.match(r'  (Weights|Trained):', line)]
    figures = ', '.join(f'{key}: {value}' for key, value in note['figures'].items())
    kept += [
        f'  Weights: {address}',
        f'  Trained: {{Seed: {note["seed"]}, Commit: {note["commit"]}, Figures: {{{figures}}}}}',
    ]
    entry = '\n'.join(kept)
    return f'{before}{mark}{entry}{again or chr(10)}{after}'


if __name__ == '__main__':
    main()
