"""Convert a Lightning checkpoint of PriMaPs-EM to one that tools/test.py loads.

Example:
    python tools/model_converters/primaps2omh.py last.ckpt primaps_vit-s8_cityscapes.pth --trust

The file is one of the EM stage on a plain DINO backbone; its running and momentum prototypes are both kept.
"""

from __future__ import annotations

from omh_mmseg.commands.model_converters.options import host_command

build_parser, main = host_command(__doc__, 'primaps')

if __name__ == '__main__':
    main()
