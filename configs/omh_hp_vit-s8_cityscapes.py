_base_ = './hp_vit-s8_cityscapes.py'
model = dict(omh_head=dict(type='OMHHead'))
