# METHODS.md 4.5, column Potsdam-3, published for ViT-B/8. For ViT-S/8 no setting is published: that it
# takes the same numbers is our choice.
smoothness_loss = dict(type='SmoothnessEnergyLoss', within_shift=0.1, across_shift=0.5)
