_base_ = './eagle_vit-s8_coco.py'
model = dict(omh_head=dict(type='OMHHead'))
