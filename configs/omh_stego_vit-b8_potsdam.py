_base_ = './stego_vit-b8_potsdam.py'
model = dict(omh_head=dict(type='OMHHead'))
