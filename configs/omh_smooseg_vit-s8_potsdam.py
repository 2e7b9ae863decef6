_base_ = './smooseg_vit-s8_potsdam.py'
model = dict(omh_head=dict(type='OMHHead'))
