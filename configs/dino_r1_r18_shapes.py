# DINO-R1 on the shapes set, two CPU cores: VIS-GDINO plus GRQO, with the published weights.
_base_ = './vis_gdino_r18_shapes.py'

reward_weight = 0.01  # alpha in the paper
kl_weight = 0.04  # beta in the paper; 0 disables the reference model
mute_share = 1 / 3  # queries of lowest objectness that get no advantage: 16 of 50

model = dict(
    bbox_head=dict(
        loss_grqo=dict(
            type='GRQOLoss',
            reward_weight=reward_weight,
            kl_weight=kl_weight,
            mute_share=mute_share,
        )
    )
)
default_hooks = dict(reference_model=dict(type='ReferenceModelHook'))
