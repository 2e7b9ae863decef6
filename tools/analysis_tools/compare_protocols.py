"""Score a checkpoint by several protocols and print them side by side."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.commands.analysis_tools.compare_protocols import main  # noqa: E402

if __name__ == '__main__':
    main()
