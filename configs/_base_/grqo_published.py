# Group Relative Query Optimization with the published weights. A leaf puts `grqo` into the head and
# `reference_model` among the hooks; `start_epoch` epochs of supervised training come first.
start_epoch = 0

grqo = dict(
    type='GRQOLoss',
    reward_weight=0.01,  # alpha in the paper
    kl_weight=0.04,  # beta in the paper; 0 disables the reference model
    mute_share=1 / 3,  # queries of lowest objectness that get no advantage: 300 of 900
    advantage='reward',  # as published; 'policy' is GRPO's own form
)
reference_model = dict(type='ReferenceModelHook', start_epoch=start_epoch)
