"""Prompts depend on their own box and image, and on nothing else."""

import torch

from mmdet_dino_r1.models.layers import VisualPromptEncoder

LEVELS = [(8, 8), (4, 4)]


def encoder():
    torch.manual_seed(0)
    module = VisualPromptEncoder(
        embed_dims=32, num_levels=2, num_heads=4, num_points=2, feedforward_channels=16
    )
    module.init_weights()
    for name, parameter in module.named_parameters():
        if 'sampling_offsets.weight' in name or 'attention_weights' in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return module.eval()


def inputs(bs: int = 2, valid=(1.0, 1.0)):
    generator = torch.Generator().manual_seed(0)
    return dict(
        feat=torch.randn(3, 80, 32, generator=generator)[:bs],
        feat_mask=None,
        spatial_shapes=LEVELS,
        level_start_index=torch.tensor([0, 64]),
        valid_ratios=torch.tensor(valid).expand(bs, 2, 2),
    )


BOXES = torch.tensor([[0.3, 0.4, 0.2, 0.3], [0.7, 0.5, 0.4, 0.2], [0.5, 0.5, 0.9, 0.9]])


def test_order_and_company_change_nothing():
    module = encoder()
    together = module(**inputs(), image_index=torch.tensor([0, 1, 0]), boxes=BOXES)
    assert together.shape == (3, 32)
    backwards = module(**inputs(), image_index=torch.tensor([0, 1, 0]), boxes=BOXES.flip(0))
    torch.testing.assert_close(backwards.flip(0)[[0, 2]], together[[0, 2]])
    alone = module(**inputs(1), image_index=torch.tensor([0]), boxes=BOXES[2:])
    torch.testing.assert_close(alone, together[2:])


def test_depends_on_box_and_image():
    module = encoder()
    index = torch.tensor([0, 1, 0])
    out = module(**inputs(), image_index=index, boxes=BOXES[[0, 0, 1]])
    assert (out[0] - out[1]).abs().max() > 1e-3, 'same box, other image'
    assert (out[0] - out[2]).abs().max() > 1e-3, 'same image, other box'


def test_position_is_that_of_the_padded_image():
    """A box of an image that fills half the padded width, by two routes."""
    module = encoder()
    half = inputs(1, valid=(0.5, 1.0))
    in_half = module(
        **half, image_index=torch.tensor([0]), boxes=torch.tensor([[0.5, 0.5, 0.4, 0.2]])
    )
    full = module(
        **inputs(1), image_index=torch.tensor([0]), boxes=torch.tensor([[0.25, 0.5, 0.2, 0.2]])
    )
    torch.testing.assert_close(in_half, full)


def test_every_parameter_takes_part():
    module = encoder()
    module(**inputs(), image_index=torch.tensor([0, 1, 0]), boxes=BOXES).square().sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    for name in ('content.weight', 'position.layers.0.weight', 'layer.ffn.layers.1.weight'):
        assert module.get_parameter(name).grad.abs().sum() > 0, name
