"""Match a checkpoint's clusters to classes on a split, and keep the result for later scores and pictures."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.commands.analysis_tools.fit_assignment import main  # noqa: E402

if __name__ == '__main__':
    main()
