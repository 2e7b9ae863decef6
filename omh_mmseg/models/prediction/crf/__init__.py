"""The dense CRF, an option of the prediction."""

from omh_mmseg.models.prediction.crf.dense_crf import DenseCRF

__all__ = ['DenseCRF']
