"""Draw docs/images/levels_and_tree.png: drawn scenes at every level of the shipped checkpoint, and its tree.

python .dev_scripts/draw_readme_picture.py
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from omh_mmseg.apis import SegmentationInferencer, draw_prediction_grid  # noqa: E402
from omh_mmseg.apis.prediction_files import head_palettes  # noqa: E402
from omh_mmseg.datasets.demo_scenes import draw_examples  # noqa: E402
from omh_mmseg.evaluation.cluster_names import cluster_names  # noqa: E402
from omh_mmseg.shipped import TRAINED  # noqa: E402
from omh_mmseg.utils.files import replaced_when_complete  # noqa: E402
from omh_mmseg.visualization import draw_hierarchy_tree  # noqa: E402


def draw(out: Path, rows: int, height: int) -> None:
    """Draw the picture: the grid on the left, the tree beside it, both of one height in pixels."""
    inferencer = SegmentationInferencer(TRAINED[-1], device='cpu')
    heads = [head for head in inferencer.heads if head.startswith('level')]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scenes = sorted(map(str, draw_examples(folder / 'scenes', 24).iterdir()))
        results = list(inferencer.iterate(scenes))
        usage = [
            sum(np.bincount(result.clusters[head].ravel(), minlength=inferencer.heads[head]) for result in results)
            for head in heads
        ]
        names = [
            cluster_names(inferencer.assignment_of(head), inferencer.classes, inferencer.heads[head]) for head in heads
        ]
        palettes = head_palettes(inferencer)
        draw_prediction_grid(folder / 'levels.png', inferencer, scenes, rows, photos=True)
        draw_hierarchy_tree(folder / 'tree.png', inferencer.hierarchy, [palettes[head] for head in heads], usage, names)
        parts = [Image.open(folder / part).convert('RGB') for part in ('levels.png', 'tree.png')]
    sizes = [(round(part.width * height / part.height), height) for part in parts]
    parts = [part.resize(size, Image.Resampling.LANCZOS) for part, size in zip(parts, sizes)]
    picture = Image.new('RGB', (sum(part.width for part in parts), height), 'white')
    for place, part in enumerate(parts):
        picture.paste(part, (place * parts[0].width, 0))
    with replaced_when_complete(out) as file:
        picture.quantize(256, dither=Image.Dither.NONE).save(file, format='png', optimize=True)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=ROOT / 'docs/images/levels_and_tree.png')
    parser.add_argument('--rows', type=int, default=5, help='scenes in it')
    parser.add_argument('--height', type=int, default=900, help='of the picture in pixels')
    args = parser.parse_args()
    draw(args.out, args.rows, args.height)
    print(f'{args.out}: {args.out.stat().st_size / 1e3:.0f} kB')


if __name__ == '__main__':
    main()
