"""Convert a published checkpoint of HP (Hidden Positives) to one that tools/test.py loads.

Example:
    python tools/model_converters/hp2omh.py cocostuff.pth hp_vit-s8_coco.pth --trust

The published files hold neither the project head nor the reference pools, which only training needs: tests need nothing
more, and a training that starts from the file (--cfg-options load_from=...) makes new ones.
"""

from __future__ import annotations

from omh_mmseg.commands.model_converters.options import host_command

build_parser, main = host_command(__doc__, 'hp')

if __name__ == '__main__':
    main()
