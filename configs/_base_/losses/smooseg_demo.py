smoothness_loss = dict(type='SmoothnessEnergyLoss', within_shift=0.1, across_shift=0.65)
