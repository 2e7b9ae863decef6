_base_ = ['./stego_vit-t8_demo.py', './_base_/models/omh_demo.py']
model = dict(omh_head={{_base_.omh_head}})
