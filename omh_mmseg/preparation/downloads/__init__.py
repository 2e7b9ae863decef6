"""From the files that a user downloads to the folders that the configs read."""

from omh_mmseg.preparation.downloads.cityscapes27 import plan_cityscapes27
from omh_mmseg.preparation.downloads.coco_stuff27 import plan_coco_stuff27
from omh_mmseg.preparation.downloads.jobs import Plan, run_jobs
from omh_mmseg.preparation.downloads.potsdam3 import plan_potsdam3

__all__ = ['Plan', 'plan_cityscapes27', 'plan_coco_stuff27', 'plan_potsdam3', 'run_jobs']
