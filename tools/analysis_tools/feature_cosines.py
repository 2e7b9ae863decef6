"""Show how similar the frozen features of a config are, to choose the shifts of a host's losses without labels."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.commands.analysis_tools.feature_cosines import main  # noqa: E402

if __name__ == '__main__':
    main()
