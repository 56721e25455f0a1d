# DINO-R1, Swin-T, COCO: VIS-GDINO plus Group Relative Query Optimization.
_base_ = './vis_gdino_swin_t_coco.py'

reward_weight = 0.01  # alpha in the paper
kl_weight = 0.04  # beta in the paper; 0 disables the reference model
mute_share = 1 / 3  # queries of lowest objectness that get no advantage: 300 of 900
advantage = 'reward'  # as published; 'policy' is GRPO's own form
start_epoch = 0  # epochs of supervised training before GRQO

model = dict(
    bbox_head=dict(
        loss_grqo=dict(
            type='GRQOLoss',
            reward_weight=reward_weight,
            kl_weight=kl_weight,
            mute_share=mute_share,
            advantage=advantage,
        )
    )
)
default_hooks = dict(reference_model=dict(type='ReferenceModelHook', start_epoch=start_epoch))
