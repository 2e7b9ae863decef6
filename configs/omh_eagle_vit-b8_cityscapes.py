_base_ = './eagle_vit-b8_cityscapes.py'
model = dict(omh_head=dict(type='OMHHead'))
