_base_ = './eagle_vit-b8_coco.py'
model = dict(omh_head=dict(type='OMHHead'))
