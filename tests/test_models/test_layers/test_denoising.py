"""Denoising queries against mmdet's own."""

import pytest
import torch
from conftest import make_batch
from mmdet.models.layers import CdnQueryGenerator

from mmdet_dino_r1.models.layers import DenoisingQueries
from mmdet_dino_r1.structures import BatchBoxes

SIZES = dict(num_classes=10, embed_dims=8, num_matching_queries=5)
GROUPS = dict(group_cfg=dict(dynamic=True, num_dn_queries=12))
THREE_AND_ONE = [
    ([[4, 4, 24, 30], [30, 20, 60, 50], [8, 8, 40, 40]], [2, 5, 7]),
    ([[20, 4, 44, 30]], [9]),
]


@pytest.mark.parametrize('batch', [THREE_AND_ONE, [([], []), THREE_AND_ONE[0]], [([], [])] * 2])
def test_equal_mmdets_but_for_chance(batch):
    """Box noise draws as mmdet does; with no label noise all is equal to the digit."""
    _, samples = make_batch(batch)
    theirs = CdnQueryGenerator(**SIZES, **GROUPS, label_noise_scale=1e-9)
    ours = DenoisingQueries(**SIZES, **GROUPS, label_noise_scale=1e-9)
    ours.load_state_dict(theirs.state_dict())
    # the labels' draws come first in either: nothing of them may reach the boxes
    noise = theirs.generate_dn_bbox_query
    results = []
    for generator, boxes in ((theirs, samples), (ours, BatchBoxes.read(samples))):
        generator.generate_dn_bbox_query = lambda *args: torch.manual_seed(3) and noise(*args)
        results.append(generator(boxes))
    for theirs_part, ours_part in zip(*results, strict=True):
        if isinstance(theirs_part, dict):
            image, _, denoised = ours_part.pop('positives')
            assert ours_part == theirs_part
            everything = [i for i, (boxes, _) in enumerate(batch) for _ in boxes]
            num_groups = theirs_part['num_denoising_groups']
            assert image.tolist() == everything * num_groups
            assert denoised.tolist() == list(range(len(everything))) * num_groups
        else:
            assert torch.equal(ours_part, theirs_part)


def test_crowds_are_bounded():
    """Of 50 boxes 12 are denoised, others in another step; the emptier image keeps its two."""
    crowd = ([[i, i, i + 8, i + 9] for i in range(50)], [i % 10 for i in range(50)])
    _, samples = make_batch([crowd, THREE_AND_ONE[1]])
    ours = DenoisingQueries(**SIZES, **GROUPS, label_noise_scale=1e-9, box_noise_scale=1e-9)
    torch.manual_seed(0)
    ground_truth = BatchBoxes.read(samples)
    content, boxes, mask, layout = ours(ground_truth)
    assert layout['num_denoising_queries'] == 24 and layout['num_denoising_groups'] == 1
    assert content.shape == (2, 24, 8) and mask.shape == (29, 29)
    first, second = layout['positives'][2].split([12, 1])
    assert len(first.unique()) == 12 and first.max() < 50 and second.tolist() == [50]
    assert not torch.equal(first, ours(ground_truth)[3]['positives'][2, :12])
    # each query sits on its box: centre (x + 4) / 64, (y + 4.5) / 64
    expected = (first[:, None] + torch.tensor([4.0, 4.5])) / 64
    torch.testing.assert_close(boxes[0, :12, :2].sigmoid(), expected, atol=1e-3, rtol=0)


def test_half_the_noise_scale_of_the_labels_is_drawn_anew():
    ours = DenoisingQueries(**SIZES, label_noise_scale=0.8)
    torch.nn.init.zeros_(ours.label_embedding.weight)
    ours.label_embedding.weight.data[3] = 1.0
    torch.manual_seed(0)
    content = ours.generate_dn_label_query(torch.full((5000,), 3), 1)  # 10000 labels
    kept = content[:, 0].mean().item()
    # 60 % are left, and one in ten of the others comes out as 3 again; 0.48 % is one deviation
    assert kept == pytest.approx(0.64, abs=0.02)
