"""Convert a published Lightning checkpoint of STEGO to one that tools/test.py loads.

Example:
    python tools/model_converters/stego2omh.py cocostuff27_vit_base_5.ckpt stego_vit-b8_coco.pth --trust
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omh_mmseg.commands.model_converters.options import as_options, convert, converter_parser
from omh_mmseg.commands.start import start
from omh_mmseg.shipped import config_path, list_configs, name_commands
from omh_mmseg.utils.files import replaced_when_complete
from omh_mmseg.utils.work_dirs import config_file

if TYPE_CHECKING:
    from omh_mmseg.models.converters.stego import ConvertedSTEGO


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = converter_parser(__doc__)
    parser.add_argument(
        '--config-out', metavar='PY', help="write a config with the file's settings, which extends the one named below"
    )
    parser.add_argument(
        '--config', help='config to extend (default: the shipped one for the data set and backbone of the file)'
    )
    return parser


def run(args: argparse.Namespace) -> None:
    """Convert, and print what the file says of its run and how to test it."""
    from omh_mmseg.models.converters.stego import convert_stego_checkpoint

    if args.config is not None:
        args.config = config_file(args.config)
        if not Path(args.config).is_file():
            raise FileNotFoundError(f'there is no config {args.config}')
    converted = convert(args, convert_stego_checkpoint)
    config = base_config(args.config, converted)
    if args.config_out is not None:
        write_config(Path(args.config_out), config, converted)
    print_table('settings stored in the file', converted.shown_settings)
    print_table('of these, our STEGO trains otherwise', converted.deviations)
    if args.config_out is not None:
        print(f'\nwrote {args.config_out}')
        print(name_commands(f'test with:\n  python tools/test.py {args.config_out} {args.target}'))
        return
    print(name_commands(
        f'\ntest with:\n  python tools/test.py {config or "CONFIG"} {args.target} \\\n    --cfg-options '
        f'{as_options(converted.model_options)}\ntrain as the file was with:\n  python tools/train.py '
        f'{config or "CONFIG"} \\\n    --cfg-options '
        f'{as_options({**converted.model_options, **converted.training_options})}'
    ))


def base_config(given: str | None, converted: ConvertedSTEGO) -> Path | None:
    """The config that the user names, else ours for the data set and backbone, else None."""
    if given is not None:
        return Path(given)
    if converted.config_name is None:
        return None
    known = converted.config_name in list_configs()
    return Path(os.path.relpath(config_path(converted.config_name))) if known else None


def write_config(path: Path, base: Path | None, converted: ConvertedSTEGO) -> None:
    """Write the config of ``--config-out``."""
    from omh_mmseg.models.converters.stego import config_text

    if base is None:
        raise ValueError(
            f'no shipped config is for the data set {converted.settings.get("dataset_name")!r} and the backbone '
            f'{converted.backbone.short_name}; name the one to extend with --config'
        )
    relative = os.path.relpath(base.resolve(), path.resolve().parent)
    with replaced_when_complete(path) as file:
        file.write(config_text(converted, relative).encode())


def print_table(title: str, values: dict[str, Any]) -> None:
    """Print names and values under a title; nothing if there are none."""
    if values:
        width = max(map(len, values))
        print(f'\n{title}:', *(f'  {name:{width}}  {value}' for name, value in values.items()), sep='\n')


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    start('stego2omh.py', build_parser(), run, argv)


if __name__ == '__main__':
    main()
