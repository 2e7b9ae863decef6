# METHODS.md 4.5, column Potsdam-3 DINOv2-B.
smoothness_loss = dict(type='SmoothnessEnergyLoss', within_shift=0.32, across_shift=0.5)
