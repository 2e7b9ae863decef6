"""Train a model of a config file, with the options of mmseg's own command."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omh_mmseg.commands.train import main  # noqa: E402

if __name__ == '__main__':
    main()
