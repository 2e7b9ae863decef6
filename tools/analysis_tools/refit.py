"""Bring the clusterings of a trained model to their fixed points; show the scores before and after."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.commands.analysis_tools.refit import main  # noqa: E402

if __name__ == '__main__':
    main()
