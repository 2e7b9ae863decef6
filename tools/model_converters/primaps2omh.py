"""Convert a Lightning checkpoint of PriMaPs-EM to one that tools/test.py loads."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.commands.model_converters.primaps2omh import main  # noqa: E402

if __name__ == '__main__':
    main()
