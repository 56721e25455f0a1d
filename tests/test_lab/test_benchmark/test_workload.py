import pytest
import torch

from mmdet_dino_r1.lab.benchmark.workload import Workload


@pytest.mark.parametrize('boxes', [1, 7, 40])
def test_boxes_are_in_the_image_and_of_the_sizes_told(boxes):
    batch = Workload(64, 96, batch_size=3, classes=5, boxes=boxes).training_batch()
    side = torch.tensor([96.0, 64.0])
    for image, sample in zip(batch['inputs'], batch['data_samples'], strict=True):
        assert image.dtype == torch.uint8 and image.shape == (3, 64, 96)
        assert sample.img_shape == (64, 96)
        corners = sample.gt_instances.bboxes
        assert corners.shape == (boxes, 4)
        assert (corners >= 0).all() and (corners <= side.repeat(2)).all()
        size = (corners[:, 2:] - corners[:, :2]) / side
        assert (size > 0.049).all() and (size < 0.501).all()


@pytest.mark.parametrize(
    ('classes', 'boxes', 'labels'),
    [(5, 3, [[0, 1, 2], [3, 4, 0]]), (20, 3, [[0, 1, 2], [3, 4, 5]]), (1, 2, [[0, 0], [0, 0]])],
)
def test_labels_run_through_the_classes(classes, boxes, labels):
    workload = Workload(64, 64, batch_size=2, classes=classes, boxes=boxes)
    batch = workload.training_batch()
    assert [s.gt_instances.labels.tolist() for s in batch['data_samples']] == labels
    assert all(s.text == workload.class_names for s in batch['data_samples'])
    assert len(set(workload.class_names)) == classes


def test_the_same_seed_gives_the_same_batch():
    workload = Workload(32, 32)
    one, same, other = (workload.training_batch(seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one['inputs'], same['inputs'], strict=True))
    assert not torch.equal(one['inputs'][0], other['inputs'][0])


def test_a_test_batch_is_one_image_without_ground_truth():
    batch = Workload(32, 48, batch_size=4).test_batch()
    assert len(batch['inputs']) == 1 and 'gt_instances' not in batch['data_samples'][0]
