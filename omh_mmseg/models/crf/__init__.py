"""The dense CRF, an option of the prediction."""

from omh_mmseg.models.crf.dense_crf import DenseCRF

__all__ = ['DenseCRF']
