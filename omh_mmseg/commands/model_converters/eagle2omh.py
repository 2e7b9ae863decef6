"""Convert a published Lightning checkpoint of EAGLE to one that tools/test.py loads.

Example:
    python tools/model_converters/eagle2omh.py cocostuff.ckpt eagle_vit-s8_coco.pth --trust
"""

from __future__ import annotations

from omh_mmseg.commands.model_converters.options import host_command

build_parser, main = host_command(__doc__, 'eagle')

if __name__ == '__main__':
    main()
