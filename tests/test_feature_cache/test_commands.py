"""``tools/prepare.py features`` and the neighbour index that is made from the cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from omh_mmseg.commands import prepare
from omh_mmseg.datasets.neighbours.index import NeighbourIndex
from omh_mmseg.preparation.neighbours import prepare_neighbours


@pytest.fixture
def command() -> Callable[[list[str]], None]:
    """The command, from its options on."""
    return lambda arguments: prepare.main(['features', *arguments])


@pytest.fixture
def tool(command, settings, tmp_path, capsys) -> Callable[..., str]:
    """``tool('stego', '--dry-run', cache=..., **changes)``: run the command; what it printed."""

    def run(host: str, *arguments: object, cache: Path | None = None, **changes: object) -> str:
        path = tmp_path / f'{host}.py'
        settings(host, folder=cache, **changes).dump(path)
        command([str(path), '--device', 'cpu', *map(str, arguments)])
        return capsys.readouterr().out

    return run


def test_command_and_run(tool, settings, train, tmp_path, passes) -> None:
    """A run finds what the command made and computes nothing; no neighbour index is needed for the command."""
    text = tool('stego', '--folder', tmp_path / 'cache')
    assert [line.partition(':')[0] for line in text.splitlines()[:3]] == [
        f'feature cache of {split}' for split in ('train', 'val', 'test')
    ]
    assert f'train with --cfg-options default_hooks.feature_cache.folder={tmp_path / "cache"}' in text
    assert sum(passes) == 10 + 4 + 3 * 3
    passes.clear()
    train(settings('stego', folder=tmp_path / 'cache'))
    # The probes of the index, of the training and of the evaluation.
    assert passes == [1] * 9


def test_dry_run(tool, tmp_path) -> None:
    text = tool('hp', '--dry-run', cache=tmp_path / 'cache')
    assert 'train: feature cache' in text and '0 of 10 items are there' in text
    assert '10 forward passes of one image and 0.00 GiB of disk space make the rest' in text
    assert not (tmp_path / 'cache').exists()
    tool('hp', '--splits', 'train', cache=tmp_path / 'cache')
    assert '10 of 10 items are there' in tool('hp', '--dry-run', '--splits', 'train', cache=tmp_path / 'cache')


def test_types_and_splits(tool, tmp_path) -> None:
    text = tool('smooseg', '--splits', 'val', '--dtype', 'bfloat16', cache=tmp_path / 'cache')
    assert 'of train' not in text and 'default_hooks.feature_cache.dtype=bfloat16' in text
    (folder,) = (tmp_path / 'cache').iterdir()
    assert '"dtype": "bfloat16"' in (folder / 'manifest.json').read_text()


@pytest.mark.parametrize(
    ('arguments', 'changes', 'message'),
    [
        (['--device', 'cuda:77'], {}, '(?s)prepare.py: device .* is not available'),
        (['--device', 'abacus'], {}, '(?s)prepare.py: device .* is not available'),
        (['--cfg-options', 'model.backbone.checkpoint=absent.pth'], {}, 'prepare.py: .*absent.pth'),
        (['--cfg-options', 'train_dataloader.dataset.data_root=absent'], {}, "prepare.py: data_root 'absent'"),
        (['--splits', 'val'], {'model.test_cfg': dict(mode='slide', crop_size=16, stride=8)}, 'val cannot be cached'),
        (['--splits', 'test'], {'test_dataloader': None}, r"those of the config, \['train', 'val'\]; got \['test'\]"),
    ],
)
def test_wrong_input(tool, tmp_path, arguments, changes, message) -> None:
    with pytest.raises(SystemExit, match=message):
        tool('smooseg', *arguments, cache=tmp_path / 'cache', **changes)
    assert not (tmp_path / 'cache').exists()


def test_absent_config(command) -> None:
    with pytest.raises(SystemExit, match='prepare.py: there is no config file absent.py'):
        command(['absent.py'])


def test_the_same_index(settings, tmp_path, passes) -> None:
    """Neighbours from the cache are those without; the features are computed once for both."""
    config = settings('stego')
    path, _ = prepare_neighbours(config, num_neighbours=5, progress=False)
    live = NeighbourIndex.load(path)
    path.unlink()
    config = settings('stego', folder=tmp_path / 'cache')
    path, _ = prepare_neighbours(config, num_neighbours=5, progress=False)
    cached = NeighbourIndex.load(path)
    assert np.array_equal(live.neighbours, cached.neighbours) and live.fingerprint == cached.fingerprint
    path.unlink()
    passes.clear()
    prepare_neighbours(config, num_neighbours=5, progress=False)
    assert passes == [1] * 3


def test_no_cache_for_the_index_where_only_training_pads(settings, tmp_path) -> None:
    """The index is of unpadded images, and so are the features then."""
    changes = {'model.data_preprocessor.size_divisor': 48, 'model.backbone.position_interpolation': None}
    path, _ = prepare_neighbours(settings('stego', **changes), num_neighbours=5, progress=False)
    live = NeighbourIndex.load(path).neighbours
    path.unlink()
    path, _ = prepare_neighbours(
        settings('stego', folder=tmp_path / 'cache', **changes), num_neighbours=5, progress=False
    )
    assert np.array_equal(NeighbourIndex.load(path).neighbours, live) and not (tmp_path / 'cache').exists()
