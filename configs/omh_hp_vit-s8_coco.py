_base_ = './hp_vit-s8_coco.py'
model = dict(omh_head=dict(type='OMHHead'))
