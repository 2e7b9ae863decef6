# moving.py for STEGO: each training image with one of its nearest neighbours (docs/methods/data.md 5.7). The
# experiment adds index and num_neighbours.
_base_ = ['./moving.py']
train_dataloader = dict(
    dataset=dict(_delete_=True, type='NeighbourPairs', dataset={{_base_.train_dataloader.dataset}})
)
