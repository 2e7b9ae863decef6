"""Write a page to walk through a hierarchy, see `omh_mmseg.explorer.command`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.explorer.command import build_parser, main  # noqa: E402, F401

if __name__ == '__main__':
    main()
