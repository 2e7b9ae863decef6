_base_ = './hp_vit-b8_potsdam.py'
model = dict(omh_head=dict(type='OMHHead'))
