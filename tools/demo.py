"""Train STEGO and STEGO + OMH on the demo scenes, print the scores and draw the hierarchy; needs no download."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omh_mmseg.commands.demo import main  # noqa: E402

if __name__ == '__main__':
    main()
