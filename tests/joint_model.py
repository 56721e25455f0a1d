"""What makes the tiny model of ``conftest.py`` one of late prompting, whose prompts are joint."""

JOINT = dict(
    fusion=False,
    prompts_from='memory',
    prompt_encoder=dict(type='JointPromptEncoder', num_layers=2),
)
