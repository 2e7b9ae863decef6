"""Write a page to walk through a hierarchy: the tree of clusters, and images at every level of it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omh_mmseg.commands.explore import main  # noqa: E402

if __name__ == '__main__':
    main()
