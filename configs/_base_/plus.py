# What won in our own studies, on two small sets each; no model of these sizes has been trained with
# it. A leaf gives both to the model. Supervised: GRQO moved no AP (docs/study.md).
quality_loss = dict(_delete_=True, type='PromptQualityFocalLoss')  # docs/study.md
prompt_contrast = dict(type='PromptContrastiveLoss')  # docs/prompt_recipe.md
