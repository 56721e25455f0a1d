# Group Relative Query Optimization in groups of the queries that compete for one object (ours). A
# leaf puts `grqo` into the head and `reference_model` among the hooks, as with grqo_published.py;
# `start_epoch` epochs of supervised training come first.
start_epoch = 0

grqo = dict(
    type='GRQOLoss',
    group='object',
    objects=dict(queries=(3, 1, 3)),  # in the layers but the last, in the last, in the selection
    reward_weight=0.0,  # of the published form, whose group is the image
    kl_weight=0.0,
)
reference_model = dict(type='ReferenceModelHook', start_epoch=start_epoch)
