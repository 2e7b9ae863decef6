# Ours, from the features of the shipped backbone and from how many clusters come into use, without labels. Its cosines
# average 0.54 within an image and 0.33 across, and one in twenty across exceeds 0.68. The energy of a single cluster
# for everything is 0, and higher shifts lower that of many. After 300 steps (-0.02, 0.5), which suits DINO's lower
# cosines, keeps the equivalent of 1.8 of the six clusters in use, (0.34, 0.5) 3.0, (0.34, 0.65) 4.0, (0.34, 0.8) 5.5.
smoothness_loss = dict(type='SmoothnessEnergyLoss', within_shift=0.34, across_shift=0.8)
