"""Score k-means on the frozen features of a config, the floor that a host has to beat.

It says, too, which of its clusters live on the border of the image, before anything is trained.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.commands.analysis_tools.kmeans_baseline import main  # noqa: E402

if __name__ == '__main__':
    main()
