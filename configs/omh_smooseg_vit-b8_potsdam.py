_base_ = './smooseg_vit-b8_potsdam.py'
model = dict(omh_head=dict(type='OMHHead'))
