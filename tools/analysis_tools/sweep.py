"""Train many settings with several seeds; write one row per run, one table and the schedule's pictures."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.commands.analysis_tools.sweep import main  # noqa: E402

if __name__ == '__main__':
    main()
