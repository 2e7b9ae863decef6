"""What the converters of checkpoints share: their options, what they tell, and the command of most."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from omh_mmseg.commands.start import start
from omh_mmseg.shipped import name_commands

if TYPE_CHECKING:
    from omh_mmseg.models.converters.dino import Converted, ConvertedHost


def converter_parser(
    doc: str | None, source: str = 'checkpoint of the reference implementation'
) -> argparse.ArgumentParser:
    """Options that each converter has; the first line of ``doc`` describes it, and ``source`` what it reads."""
    parser = argparse.ArgumentParser(description=name_commands((doc or '').splitlines()[0]))
    parser.add_argument('source', metavar='SRC', help=source)
    parser.add_argument('target', metavar='DST', help='file to write')
    parser.add_argument(
        '--trust', action='store_true', help='read pickled objects too, with inert ones in place of all classes'
    )
    return parser


def as_options(values: Mapping[str, Any]) -> str:
    """Words for ``--cfg-options``."""
    return ' '.join(f'{name}={value}' for name, value in values.items())


def convert(args: argparse.Namespace, converter: Callable[[Any, str], Converted]) -> Converted:
    """Convert the file that ``args`` name, and print what was written."""
    from omh_mmseg.models.converters.dino import convert_file

    converted = convert_file(converter, args.source, args.target, args.trust)
    extra = f' and {converted.extra_clusters} extra clusters' if converted.extra_clusters else ''
    print(f'wrote {args.target}: {converted.num_classes} classes{extra}, code of {converted.channels} channels')
    if converted.left_out:
        print('left out: ' + ', '.join(converted.left_out))
    return converted


def tell_test(host: str, converted: ConvertedHost, target: str) -> None:
    """Print the command that tests a converted file, with the settings that the file needs."""
    options = as_options(converted.model_options)
    given = f' --cfg-options {options}' if options else ''
    name = converted.backbone.short_name or 'BACKBONE'
    print(name_commands(f'test with:\n  python tools/test.py configs/{host}_{name}_DATA.py {target}{given}'))


def host_command(
    doc: str | None, host: str
) -> tuple[Callable[[], argparse.ArgumentParser], Callable[..., None]]:
    """``build_parser`` and ``main`` of the command for the files of a host whose conversion has no options."""

    def build_parser() -> argparse.ArgumentParser:
        return converter_parser(doc)

    def run(args: argparse.Namespace) -> None:
        module = importlib.import_module(f'omh_mmseg.models.converters.{host}')
        tell_test(host, convert(args, getattr(module, f'convert_{host}_checkpoint')), args.target)

    def main(argv: list[str] | None = None) -> None:
        start(f'{host}2omh.py', build_parser(), run, argv)

    return build_parser, main
