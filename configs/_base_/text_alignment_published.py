# Prompt-text contrast with the published weight. A leaf gives `text_alignment` to the model and the
# hook to the hooks; `model.text_alignment=None` trains without. See docs/text_alignment.md.
text_alignment = dict(
    type='PromptTextContrastiveLoss',
    embeddings='data/coco/text_embeddings.safetensors',
    bert='bert-base-uncased',  # makes the file where it is not there; None: it has to be there
    loss_weight=100.0,
)
text_alignment_hook = dict(type='TextAlignmentHook')
