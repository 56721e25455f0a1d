# PET-DINO, Swin-L, for its published weights: prompts read from the encoder's output, seen by none.
_base_ = './vis_gdino_swin_l_model.py'

model = dict(
    fusion=False,  # neither image features nor decoder see the prompts
    prompts_from='memory',
    prompt_encoder=dict(type='JointPromptEncoder'),  # a prompt for each class and image
    bbox_head=dict(num_classes=256),  # as the weights have it; a training takes this many classes
)
