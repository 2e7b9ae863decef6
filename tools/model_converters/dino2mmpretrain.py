"""Convert weights of DINO's vision transformers to the names of mmpretrain.VisionTransformer."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from omh_mmseg.commands.model_converters.dino2mmpretrain import main  # noqa: E402

if __name__ == '__main__':
    main()
