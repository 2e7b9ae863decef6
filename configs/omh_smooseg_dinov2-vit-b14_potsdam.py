_base_ = './smooseg_dinov2-vit-b14_potsdam.py'
model = dict(omh_head=dict(type='OMHHead'))
