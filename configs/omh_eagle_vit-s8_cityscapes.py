_base_ = './eagle_vit-s8_cityscapes.py'
model = dict(omh_head=dict(type='OMHHead'))
