"""Figures that need no labels: of a model, and beside the scores of sweeps."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.commands.analysis_tools.label_free import main  # noqa: E402

if __name__ == '__main__':
    main()
