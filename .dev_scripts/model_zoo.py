"""Write docs/zoo.md, the table of all configs, from their metafiles and from what they say themselves.

python .dev_scripts/model_zoo.py            # write it
python .dev_scripts/model_zoo.py --check    # exit with 1 if it is not what this would write
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from mmengine.config import Config  # noqa: E402

from omh_mmseg.utils.dataset_configs import nested_datasets  # noqa: E402
from omh_mmseg.utils.files import write_text  # noqa: E402
from omh_mmseg.utils.metafiles import read_models  # noqa: E402

PAGE = REPOSITORY / 'docs' / 'zoo.md'
INTRODUCTION = """# Model zoo

Every config of the library: what it trains on, for how long, and what is known of its scores. Made from `configs/metafiles/` and the
configs by `python .dev_scripts/model_zoo.py`; a test compares the two.

`omh-train NAME` trains a config by its name, `omh-predict CONFIG CHECKPOINT IMAGES` segments images with the result; in a checkout
`python tools/train.py configs/NAME.py` is the same. `omh_mmseg.list_configs()` lists the names and `omh_mmseg.config_path(NAME)`
is the file. After `import omh_mmseg`, `MMSegInferencer(NAME, weights=CHECKPOINT)`, `mmengine.hub.get_config('omh_mmseg::NAME.py')` and `get_model` take them, too, as
does `mim train omh_mmseg NAME.py`.

**Reported** is what others published, with where it was read; protocols differ between papers and are not always told, so that two
rows need not compare ([evaluation](evaluation.md)). *Ours* was measured by this library. "Never run here" means that: the settings are the
published ones, and neither the data set nor the time was there to train them. No table of OMH's paper could be read, so that its rows report nothing.

The cost is that of a training step; more of it is in [benchmarks](benchmarks.md). {weights}
"""
HEADER = (
    '| config | backbone | clusters | steps x batch, input | reported | *ours* | a step | command |\n|' + '---|' * 8
)
NOTHING, NEVER = '-', 'never run here'
SIZES = ('crop_size', 'size', 'scale')


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--check', action='store_true', help='write nothing; compare')
    args = parser.parse_args()
    text = make_page()
    if args.check:
        sys.exit(0 if PAGE.is_file() and PAGE.read_text() == text else f'{PAGE} is not what {Path(__file__).name} writes')
    write_text(PAGE, text)
    print(f'wrote {PAGE}')


def make_page() -> str:
    """The page: a table per data set, hosts in turn, each followed by itself with OMH."""
    sections: dict[str, list[str]] = {}
    for name, entry in read_models().items():
        sections.setdefault(entry['Metadata']['Training Data'], []).append(make_row(name, entry))
    tables = [f'\n## {title}\n\n{HEADER}\n' + '\n'.join(rows) + '\n' for title, rows in sections.items()]
    offered = [name for name, entry in read_models().items() if 'Weights' in entry]
    weights = f'Trained weights come with the package for {" and ".join(offered)} (`omh_mmseg.checkpoint_path(NAME)`, found by the name alone); `omh-predict --demo` shows them.'
    return INTRODUCTION.replace('{weights}', weights) + ''.join(tables)


def make_row(name: str, entry: Mapping[str, Any]) -> str:
    """The row of a config."""
    path = REPOSITORY / entry['Config']
    config = Config.fromfile(path)
    schedule = f'{config.train_cfg.max_iters} x {config.train_dataloader.batch_size}, {input_size(config)}'
    reported = '; '.join(f'{figures(one["Figures"])} ({one["Source"]})' for one in entry.get('Reported', []))
    ours, cost = entry.get('Ours'), entry.get('Cost')
    measured = f'{figures(ours["Figures"])} ({ours["Runs"]}: {link(ours["Source"])})' if ours else NEVER
    trained = entry.get('Trained')
    if trained:
        told = f'seed {trained["Seed"]}, commit {trained["Commit"]}'
        measured += f'; the shipped checkpoint: {figures(trained["Figures"])} ({told})'
    step = NOTHING
    if cost:
        step = f'{cost["Step (ms)"]} ms, {cost["Memory (MiB)"]} MiB ({cost["Setting"]}: {link(cost["Source"])})'
    cells = (
        f'[{name}](../{entry["Config"]})', f'`{backbone_of(path)}`', str(config.model.num_classes), schedule,
        reported or NOTHING, measured, step, f'`omh-train {name}`',
    )  # fmt: skip
    return f'| {" | ".join(cells)} |'


def figures(values: Mapping[str, float]) -> str:
    """``mIoU 28.2, accuracy 56.9``."""
    return ', '.join(f'{name[0].lower() + name[1:]} {value}' for name, value in values.items())


def link(page: str) -> str:
    """A link from the page to another one of ``docs``."""
    inside = Path(page).relative_to('docs')
    return f'[{inside.parent.name if inside.stem == "README" else inside.with_suffix("")}]({inside})'


def backbone_of(path: Path) -> str:
    """Name of the block in ``configs/_base_/models/backbones`` that a config or one of its bases takes."""
    for base in bases_of(path):
        if base.parent.name == 'backbones':
            return base.stem
    raise ValueError(f'{path} has no backbone among its bases')


def bases_of(path: Path) -> Iterator[Path]:
    """The bases of a config, those of its bases included."""
    for statement in ast.parse(path.read_text()).body:
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], 'id', '') == '_base_':
            listed = ast.literal_eval(statement.value)
            for base in [listed] if isinstance(listed, str) else listed:
                yield (path.parent / base).resolve()
                yield from bases_of((path.parent / base).resolve())


def input_size(config: Config) -> str:
    """Height and width of what the network is trained on, in pixels: the last size of the outermost pipeline that has any."""
    for _, dataset in nested_datasets(config.train_dataloader.dataset):
        for step in reversed(dataset.get('pipeline') or []):
            for size in filter(None, map(step.get, SIZES)):
                return f'{size[0]} x {size[1]} px' if isinstance(size, (list, tuple)) else f'{size} px'
    return 'any size'


if __name__ == '__main__':
    main()
