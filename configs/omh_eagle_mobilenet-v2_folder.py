_base_ = './eagle_mobilenet-v2_folder.py'
model = dict(omh_head=dict(type='OMHHead'))
