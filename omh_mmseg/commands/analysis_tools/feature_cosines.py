"""Show how similar the frozen features of a config are, to choose the shifts of a host's losses without labels.

Pairs of positions whose cosine exceeds a loss's shift attract each other, the others repel. Where the config trains on
pairs of neighbours, as STEGO does, theirs are shown, too.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import TYPE_CHECKING

from omh_mmseg.commands.options import add_launcher_options
from omh_mmseg.commands.start import start

if TYPE_CHECKING:
    from mmengine.config import Config
    from torch import Tensor

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file')
    parser.add_argument('--images', type=int, default=64, help='number of images')
    parser.add_argument('--positions', type=int, default=100, help='positions drawn in each image')
    parser.add_argument('--seed', type=int, default=0, help='seed of the drawing')
    add_launcher_options(parser)
    return parser


def run(args: argparse.Namespace) -> None:
    """Read the config and print."""
    import torch

    from omh_mmseg.utils.config import read_config

    if args.images < 1 or args.positions < 1:
        raise ValueError(f'--images and --positions must be at least 1; got {args.images} and {args.positions}')
    config = read_config(args.config, args.cfg_options)
    with torch.no_grad():
        print_cosines(config, args)


def print_cosines(config: Config, args: argparse.Namespace) -> None:
    """Draw positions and print the quantiles of their cosines."""
    import torch
    from mmengine.dataset import pseudo_collate
    from mmengine.registry import init_default_scope
    from torch.nn import functional
    from torch.utils.data import DataLoader

    from omh_mmseg.datasets.neighbours.pairs import pairs_of
    from omh_mmseg.models.losses.stego_correlation_loss import super_permutation
    from omh_mmseg.preparation.neighbours import complete_pairs
    from omh_mmseg.registry import DATASETS, MODELS

    init_default_scope(config.get('default_scope', 'mmseg'))
    torch.manual_seed(args.seed)
    model = MODELS.build(config.model)
    model.init_weights()
    model.eval()
    dataset = DATASETS.build(config.train_dataloader.dataset)
    for pairs in pairs_of(dataset):
        complete_pairs(pairs, config, model.backbone)
    loader = DataLoader(
        dataset,
        batch_size=8,
        shuffle=True,
        drop_last=True,
        collate_fn=pseudo_collate,
    )
    cosines: dict[str, list[Tensor]] = defaultdict(list)
    for _, batch in zip(range(-(-args.images // 8)), loader):
        views = model.data_preprocessor(batch, True)['inputs']
        images = list(views.values()) if isinstance(views, dict) else [views]
        anchor, *neighbour = (functional.normalize(model.extract_feat(view).flatten(2), dim=1) for view in images)
        first, second = (torch.randperm(anchor.shape[2])[: args.positions] for _ in range(2))
        others = {'of one image': anchor}
        if neighbour:
            others['of image and neighbour'] = neighbour[0]
        others['of two random images'] = anchor[super_permutation(len(anchor))]
        for title, other in others.items():
            cosines[title].append(torch.bmm(anchor[..., first].transpose(1, 2), other[..., second]).flatten())
    print('cosine of two positions ' + ''.join(f'{f"{quantile:.0%} below":>11}' for quantile in QUANTILES))
    for title, found in cosines.items():
        values = torch.cat(found).sort().values
        picked = [float(values[int(quantile * (len(values) - 1))]) for quantile in QUANTILES]
        print(f'{title:24}' + ''.join(f'{value:11.2f}' for value in picked))


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('feature_cosines.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
