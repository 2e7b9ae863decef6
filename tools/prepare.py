"""Make what a training needs, once: data folders, labels as class numbers, five crops, neighbours, features."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omh_mmseg.commands.prepare import main  # noqa: E402

if __name__ == '__main__':
    main()
