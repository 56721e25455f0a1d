"""What makes the tiny model of ``conftest.py`` another: late prompting, joint prompts."""

_JOINTLY = dict(prompt_encoder=dict(type='JointPromptEncoder', num_layers=2))
VARIANTS = dict(
    fused_joint=_JOINTLY,
    late_neck=dict(fusion=False),
    late_memory=dict(fusion=False, prompts_from='memory'),
    late_joint=dict(fusion=False, prompts_from='memory', **_JOINTLY),
)
JOINT = VARIANTS['late_joint']
