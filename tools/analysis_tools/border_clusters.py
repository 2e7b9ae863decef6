"""Say which clusters live on the border of the image, where it ends, instead of on what it shows."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.commands.analysis_tools.border_clusters import main  # noqa: E402

if __name__ == '__main__':
    main()
