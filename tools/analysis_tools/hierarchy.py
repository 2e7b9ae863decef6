"""What finished runs learned of the hierarchy: tables and pictures of plans, parts, scores, stability and recovery."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.commands.analysis_tools.hierarchy import main  # noqa: E402

if __name__ == '__main__':
    main()
