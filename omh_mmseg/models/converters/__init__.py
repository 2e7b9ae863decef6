"""Weights of other implementations as checkpoints of ours."""

from omh_mmseg.models.converters.dino import TransformerShape, convert_dino, transformer_shape
from omh_mmseg.models.converters.foreign_pickle import ForeignObject, plain_settings, read_foreign_checkpoint
from omh_mmseg.models.converters.hp import ConvertedHP, convert_hp, convert_hp_checkpoint
from omh_mmseg.models.converters.smooseg import ConvertedSmooSeg, convert_smooseg, convert_smooseg_checkpoint
from omh_mmseg.models.converters.stego import ConvertedSTEGO, config_text, convert_stego, convert_stego_checkpoint

__all__ = [
    'ConvertedHP',
    'ConvertedSTEGO',
    'ConvertedSmooSeg',
    'ForeignObject',
    'TransformerShape',
    'config_text',
    'convert_dino',
    'convert_hp',
    'convert_hp_checkpoint',
    'convert_smooseg',
    'convert_smooseg_checkpoint',
    'convert_stego',
    'convert_stego_checkpoint',
    'plain_settings',
    'read_foreign_checkpoint',
    'transformer_shape',
]
