_base_ = './smooseg_vit-b8_cityscapes.py'
model = dict(omh_head=dict(type='OMHHead'))
