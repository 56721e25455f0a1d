"""Whatever the boxes, labels, images and prompts: properties that hold for all of them.

The examples are made by hypothesis, the same in every run.
"""

import pytest
import torch
from conftest import build_tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment

from mmdet_dino_r1.models.layers import DenoisingQueries
from mmdet_dino_r1.models.losses import GRQOLoss
from mmdet_dino_r1.models.task_modules import BatchedHungarianAssigner, InBatchPromptSampler
from mmdet_dino_r1.structures import BankExemplars, BatchBoxes, Candidates, PromptBank
from mmdet_dino_r1.structures.prompt_bank_file import load_prompt_bank, save_prompt_bank

NUM_CLASSES = 30  # of the tiny model, the size of its denoising label embedding
SIZES = [(64, 64), (48, 64), (64, 40), (32, 32), (33, 63)]

few = settings(max_examples=25, deadline=None, derandomize=True, database=None)
many = settings(max_examples=60, deadline=None, derandomize=True, database=None)


# --- what the examples are made of ------------------------------------------------------


def whole(low: int, high: int) -> st.SearchStrategy:
    return st.integers(low, high)


@st.composite
def boxes_of(draw, height: int, width: int) -> list[float]:
    """(x1, y1, x2, y2) in pixels, finite and not inverted, of any kind that data may bring."""
    kind = draw(
        st.sampled_from(['usual', 'tiny', 'huge', 'border', 'whole', 'outside', 'line', 'point'])
    )
    x, y = draw(whole(0, width - 2)), draw(whole(0, height - 2))
    right, below = draw(whole(x + 1, width)), draw(whole(y + 1, height))
    return {
        'usual': [x, y, right, below],
        'tiny': [x, y, x + 1e-3, y + 1e-3],
        'huge': [x - 1e4, y - 1e4, x + 1e4, y + 1e4],
        'border': [0, y, width, below],
        'whole': [0, 0, width, height],
        'outside': [x + width, y + height, right + width, below + height],
        'line': [x, y, x, below],
        'point': [x, y, x, y],
    }[kind]


labels = st.one_of(whole(0, 3), st.sampled_from([NUM_CLASSES - 1]), whole(0, NUM_CLASSES - 1))


@st.composite
def images(draw, most_boxes: int = 6, sizes=SIZES) -> tuple[tuple[int, int], list, list]:
    """Height and width, boxes and labels; no box, some, one many times, or a crowd."""
    size = draw(st.sampled_from(sizes))
    boxes = draw(st.lists(boxes_of(*size), max_size=most_boxes))
    times = draw(st.sampled_from([1, 1, 2, 12])) if len(boxes) <= 3 else 1
    boxes = boxes * times  # identical boxes, perhaps of several classes
    return size, boxes, draw(st.lists(labels, min_size=len(boxes), max_size=len(boxes)))


batches = st.lists(images(), min_size=1, max_size=3)
samplers = st.builds(
    InBatchPromptSampler,
    exemplars_per_class=st.sampled_from([1, 3]),
    prefer_other_image=st.booleans(),
    max_prompts=st.sampled_from([None, 1, 2]),
)
losses_of_grqo = st.one_of(
    st.none(),
    st.builds(
        GRQOLoss,
        reward_weight=st.sampled_from([0.01, 10.0]),
        kl_weight=st.sampled_from([0.0, 0.04]),
        advantage=st.sampled_from(['reward', 'policy']),
    ),
)


def made(batch, seed: int = 0):
    """Random images, padded to one size, and their samples with ground truth."""
    tallest = max(size[0] for size, _, _ in batch)
    widest = max(size[1] for size, _, _ in batch)
    pixels = torch.zeros(len(batch), 3, tallest, widest)
    samples = []
    for index, ((height, width), boxes, of_classes) in enumerate(batch):
        generator = torch.Generator().manual_seed(1000 * seed + index)
        pixels[index, :, :height, :width] = torch.randn(3, height, width, generator=generator)
        meta = dict(
            img_shape=(height, width),
            ori_shape=(height, 2 * width),
            batch_input_shape=(tallest, widest),
            pad_shape=(tallest, widest),
            scale_factor=(0.5, 1.0),
            img_id=index,
        )
        samples.append(DetDataSample(metainfo=meta))
        samples[-1].gt_instances = InstanceData(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(of_classes, dtype=torch.long),
        )
    return pixels, samples


@pytest.fixture(scope='module')
def model():
    init_default_scope('mmdet')
    torch.manual_seed(0)
    detector = build_tiny(dict(kl_weight=0.04), num_queries=10).train()
    detector.reference_model.refresh(detector)
    # as after some steps of training, so that the KL is not zero
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    return detector


# --- training ---------------------------------------------------------------------------


@few
@given(batches, samplers, losses_of_grqo, whole(0, 99))
@example(
    [((64, 64), [[0, 0, 64, 64]] * 40, [1] * 39 + [29]), ((32, 32), [], [])],
    InBatchPromptSampler(2, True),
    GRQOLoss(),
    0,
)
def test_losses_and_all_gradients_are_finite(model, batch, sampler, grqo, seed):
    torch.manual_seed(seed)
    model.train()
    model.prompt_sampler, model.bbox_head.loss_grqo = sampler, grqo
    model.zero_grad()
    losses = model.loss(*made(batch, seed))
    wrong = [name for name, value in losses.items() if not torch.isfinite(value).all()]
    assert wrong == []
    total, _ = model.parse_losses(losses)
    total.backward()
    without = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert without == []
    wrong = [name for name, p in model.named_parameters() if not torch.isfinite(p.grad).all()]
    assert wrong == []


# --- prediction -------------------------------------------------------------------------


def found_in(samples) -> list[tuple[torch.Tensor, ...]]:
    instances = [sample.pred_instances for sample in samples]
    return [(found.scores, found.bboxes, found.labels) for found in instances]


def bank_of(count: int, scale: float = 1.0) -> PromptBank:
    rows = torch.randn(count, 256, generator=torch.Generator().manual_seed(count))
    return PromptBank(tuple(f'class {i}' for i in range(count)), scale * rows)


@few
@given(
    st.lists(images(most_boxes=0), min_size=1, max_size=3),
    st.sampled_from([1, 2, 7, 40, 300]),
    st.sampled_from([0, 1, 3, 300]),
    st.sampled_from([None, dict(type='nms', iou_threshold=0.5)]),
    st.sampled_from([1e-4, 1.0, 1e4]),
    st.booleans(),
)
@torch.no_grad()
def test_detections_are_in_the_image_and_in_order(
    model, batch, num_prompts, chunk_size, nms, scale, rescale
):
    model.eval()
    model.set_prompt_bank(bank_of(num_prompts, scale))
    chunk_size = 0 if num_prompts > 10 * max(chunk_size, 1) else chunk_size  # few chunks will do
    model.test_cfg.chunk_size, model.bbox_head.test_cfg.nms = chunk_size, nms
    for sample in model.predict(*made(batch), rescale=rescale):
        height, width = sample.img_shape
        if rescale:
            width *= 2
        found = sample.pred_instances
        assert 0 < len(found) <= 20
        x1, y1, x2, y2 = found.bboxes.unbind(1)
        assert ((x1 >= 0) & (x1 <= x2) & (x2 <= width)).all()
        assert ((y1 >= 0) & (y1 <= y2) & (y2 <= height)).all()
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        assert (found.scores.diff() <= 0).all()
        assert ((found.labels >= 0) & (found.labels < num_prompts)).all()


@few
@given(st.lists(images(sizes=[(64, 48)]), min_size=1, max_size=3), st.randoms())
@torch.no_grad()
def test_own_prompts_give_what_they_give_alone(model, batch, chance):
    """Images of one size: neither company, nor order, nor padding prompts matter."""
    model.eval()
    model.test_cfg.chunk_size, model.bbox_head.test_cfg.nms = 0, None

    def predicted(indices):
        pixels, samples = made(batch)
        samples = [samples[index] for index in indices]
        for sample in samples:
            sample.prompt_instances = sample.gt_instances
        return found_in(model.predict(pixels[indices], samples))

    order = list(range(len(batch)))
    chance.shuffle(order)
    together = predicted(order)
    for found, index in zip(together, order, strict=True):
        (alone,) = predicted([index])
        assert set(found[2].tolist()) <= set(batch[index][2])
        assert (len(found[0]) == 0) == (batch[index][2] == [])
        torch.testing.assert_close(found[0], alone[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[1], alone[1], rtol=1e-4, atol=1e-2)  # in pixels


# --- pure parts -------------------------------------------------------------------------


@many
@given(
    st.lists(st.tuples(whole(0, 5), whole(0, 3)), min_size=1, max_size=30), samplers, whole(0, 99)
)
def test_exemplars_drawn(boxes, sampler, seed):
    """The rule of the sampler's docstring, box by box."""
    boxes = sorted(boxes, key=lambda box: box[1])  # image by image
    of_class, image = (torch.tensor(column) for column in zip(*boxes, strict=True))
    drawn = sampler.draw(Candidates(of_class, image, 4), torch.Generator().manual_seed(seed))
    classes = set(of_class.tolist())
    most, limit = sampler.exemplars_per_class, sampler.max_prompts or len(classes)
    chosen = of_class[drawn.index]
    assert len(set(drawn.index.tolist())) == len(drawn.index)
    assert chosen.tolist() == sorted(chosen.tolist())
    assert len(chosen.unique()) == min(limit, len(classes))
    for name in chosen.unique():
        count = int((of_class == name).sum())
        if not sampler.prefer_other_image:
            assert drawn.image_mask is None
            assert (chosen == name).sum() == min(most, count)
            continue
        for here in range(4):
            serving = drawn.index[drawn.image_mask[:, here] & (chosen == name)]
            elsewhere = int(((of_class == name) & (image != here)).sum())
            assert len(serving) == min(most, elsewhere or count)
            assert elsewhere == 0 or here not in image[serving]


costs_of_an_image = st.tuples(whole(0, 9), st.sampled_from([0.0, 1.0, 1e6]), whole(0, 99))


@many
@given(st.lists(costs_of_an_image, min_size=1, max_size=3), whole(1, 3), whole(1, 6))
def test_matching_is_scipys_for_each_layer_and_image(gts, num_layers, num_queries):
    """Also with more boxes than queries, with no box, and with equal costs."""
    costs = [
        scale * torch.rand(num_layers, num_queries, count, generator=torch.manual_seed(seed))
        for count, scale, seed in gts
    ]
    matches = BatchedHungarianAssigner.match(costs)
    assert matches.layer.tolist() == sorted(matches.layer.tolist())
    for layer in range(num_layers):
        for index, cost in enumerate(costs):
            mine = (matches.layer == layer) & (matches.image == index)
            queries, boxes = matches.query[mine], matches.gt[mine]
            pairs = min(num_queries, cost.shape[2])
            assert len(set(queries.tolist())) == len(set(boxes.tolist())) == len(boxes) == pairs
            least = cost[layer].numpy()[linear_sum_assignment(cost[layer].numpy())].sum()
            assert cost[layer, queries, boxes].sum().item() == pytest.approx(least, rel=1e-5)


@many
@given(batches, whole(1, 30), whole(0, 99))
def test_denoising_queries_are_bounded_finite_and_apart(batch, num_dn_queries, seed):
    torch.manual_seed(seed)
    group = dict(dynamic=True, num_dn_queries=num_dn_queries)
    generator = DenoisingQueries(NUM_CLASSES, 8, num_matching_queries=5, group_cfg=group)
    _, samples = made(batch)
    content, boxes, mask, layout = generator(BatchBoxes.read(samples))
    count, groups = layout['num_denoising_queries'], layout['num_denoising_groups']
    fullest = min(max(len(of_image[1]) for of_image in batch), num_dn_queries)
    assert count == 2 * groups * fullest <= 2 * num_dn_queries
    assert content.shape == (len(batch), count, 8) and boxes.shape == (len(batch), count, 4)
    assert torch.isfinite(content).all() and torch.isfinite(boxes).all()
    assert not mask[:count, count:].any() and not mask[count:, count:].any()
    assert mask[count:, :count].all(), 'a matching query sees a denoising one'
    group_of = torch.arange(count) // max(count // groups, 1)
    assert torch.equal(mask[:count, :count], group_of[:, None] != group_of)


texts = st.text(st.characters(exclude_categories=['Cs']), min_size=1, max_size=8)
numbers = st.floats(-(2.0**99), 2.0**99, width=32)


@st.composite
def banks(draw) -> PromptBank:
    names = draw(st.lists(texts, min_size=1, max_size=5, unique=True))
    dim = draw(whole(1, 4))
    kind = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))

    def rows(count, width):
        flat = draw(st.lists(numbers, min_size=count * width, max_size=count * width))
        return torch.tensor(flat).reshape(count, width)

    exemplars = None
    if draw(st.booleans()):
        owners = draw(st.lists(whole(0, len(names) - 1), max_size=6))
        files = tuple(draw(texts) for _ in owners)
        ids = tuple(draw(st.one_of(whole(0, 2**40), texts)) for _ in owners)
        exemplars = BankExemplars(
            torch.tensor(owners, dtype=torch.long),
            rows(len(owners), 4),
            ids,
            files,
            rows(len(owners), dim) if draw(st.booleans()) else None,
        )
    values = st.one_of(st.none(), st.booleans(), whole(-9, 9), texts, st.lists(texts, max_size=2))
    provenance = draw(st.dictionaries(texts, values, max_size=3))
    class_ids = tuple(range(7, 7 + len(names))) if draw(st.booleans()) else ()
    embeddings = rows(len(names), dim).to(kind)
    return PromptBank(tuple(names), embeddings, provenance, class_ids, exemplars)


@many
@given(bank=banks(), name=st.sampled_from(['bank', 'Prompts für 数据', 'a b.c']))
def test_a_bank_comes_back_as_it_was(bank, name, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / f'{name}.safetensors'
    again = load_prompt_bank(save_prompt_bank(bank, path))
    assert again.class_names == bank.class_names and again.class_ids == bank.class_ids
    assert again.provenance == bank.provenance
    assert again.embeddings.dtype == bank.embeddings.dtype
    assert torch.equal(again.embeddings, bank.embeddings)
    assert (again.exemplars is None) == (bank.exemplars is None)
    if bank.exemplars is not None:
        for field in ('image_ids', 'file_names'):
            assert getattr(again.exemplars, field) == getattr(bank.exemplars, field)
        for field in ('labels', 'boxes', 'embeddings'):
            mine, theirs = getattr(again.exemplars, field), getattr(bank.exemplars, field)
            assert mine is theirs is None or torch.equal(mine, theirs)
