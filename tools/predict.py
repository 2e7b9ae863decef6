"""Segment a folder of images (or single ones): masks, overlays, a picture of all levels and a JSON summary."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omh_mmseg.commands.predict import main  # noqa: E402

if __name__ == '__main__':
    main()
