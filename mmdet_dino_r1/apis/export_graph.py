"""The detector for one prompt bank and one image size, in a form that ONNX can hold.

Shapes: batch, H, W (fixed), num_points, num_queries, num_prompts, n (detections).

Some parts cannot be exported as they stand. In a copy of the model they are replaced by what gives
the same numbers, but for rounding; the model itself stays as it is:

- ``pre_transformer``: positions and valid ratios become constants, as the size is fixed. There are
  no padding masks, since the image fills the input.
- ``pre_decoder`` and ``forward_decoder`` take the length of a tensor, which would fix the batch
  size; :meth:`PromptedDetector.detect` calls the same modules in the same order.
- Swin's ``window_reverse`` computes the batch size by dividing; here it is left open.
- The head's post-processing goes image by image; here over the whole batch.
"""

from __future__ import annotations

from copy import deepcopy
from types import MethodType

import torch
from mmdet.models.backbones.swin import ShiftWindowMSA
from mmdet.models.layers import inverse_sigmoid
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from torch import Tensor, nn

from ..models.detectors import DINOR1
from ..structures import PromptBank, VisualPrompts


class PromptedDetector(nn.Module):
    """Images to detections, for one bank and one image_size (H, W): what goes into the graph.

    The model is an :func:`exportable_copy`; num_detections is as for ``export_onnx``.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: DINOR1,
        bank: PromptBank,
        image_size: tuple[int, int],
        num_detections: int | None,
    ) -> None:
        super().__init__()
        self.model = model
        self.num_detections = num_detections
        height, width = image_size
        self.register_buffer('prompts', bank.embeddings.cpu().float())
        self.register_buffer('pixels', torch.tensor([width, height, width, height]).float())
        # what depends on the size alone: taken once from the stage itself, for a batch of one
        feats = model.extract_feat(torch.zeros(1, 3, height, width))
        sample = DetDataSample(metainfo=dict(img_shape=image_size, batch_input_shape=image_size))
        encoder_inputs, _ = model.pre_transformer(feats, [sample])
        self.spatial_shapes = encoder_inputs['spatial_shapes']
        self.register_buffer('positions', encoder_inputs['feat_pos'])
        self.register_buffer('valid_ratios', encoder_inputs['valid_ratios'])

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(batch, 3, H, W) uint8 RGB to boxes, scores and labels; see ``export_onnx``."""
        feats = self.model.extract_feat(self.normalised(images))
        feat = torch.cat([feat.flatten(2).transpose(1, 2) for feat in feats], dim=1)
        labels = torch.arange(len(self.prompts))
        prompts = VisualPrompts.shared(self.prompts, labels, images.shape[0])
        image = self.model.encode_image(
            dict(
                feat=feat,
                feat_mask=None,
                feat_pos=self.positions,
                spatial_shapes=self.spatial_shapes,
                level_start_index=None,  # for mmcv's operator, which is replaced
                valid_ratios=self.valid_ratios,
            )
        )
        chunks = prompts.chunks(self.model.test_cfg.get('chunk_size', 0))
        found = [self.detect(image, chunk) for chunk in chunks]
        if len(found) == 1:
            return found[0]
        boxes, scores, labels = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        scores, index = scores.topk(min(self.limit, scores.shape[1]))
        return _take(boxes, index), scores, labels.gather(1, index)

    @property
    def limit(self) -> int:
        """Most detections of an image."""
        default = self.model.bbox_head.test_cfg.get('max_per_img', self.model.num_queries)
        return self.num_detections or default

    def normalised(self, images: Tensor) -> Tensor:
        """(batch, 3, H, W) RGB, as the model's data preprocessor leaves BGR images; same shape."""
        preprocessor, images = self.model.data_preprocessor, images.float()
        if not preprocessor._channel_conversion:
            images = images.flip(1)
        if preprocessor._enable_normalize:
            images = (images - preprocessor.mean) / preprocessor.std
        return images

    def detect(self, image: dict, prompts: VisualPrompts) -> tuple[Tensor, Tensor, Tensor]:
        """The best (query, prompt) pairs of what ``encode_image`` gave; as ``DINOR1Head.predict``.

        All images have the same prompts, without padding.
        """
        model, head = self.model, self.model.bbox_head
        levels = {k: image[k] for k in ('spatial_shapes', 'level_start_index', 'valid_ratios')}
        encoded = model.forward_encoder(**image, text_dict=prompts.as_text_dict())
        memory, fused = encoded['memory'], encoded['memory_text']
        visible = encoded['text_token_mask']
        batch = memory.shape[0]
        selection = model.query_selector(
            model.selectable(memory, encoded['invalid_mask']),
            encoded['proposals'].expand(batch, -1, -1),
            fused,
            visible,
            head.cls_branches[-1],
            head.reg_branches[-1],
        )
        states, references = model.decoder(
            model.query_embedding.weight.expand(batch, -1, -1),
            memory,
            None,
            None,
            selection.boxes_unact.sigmoid(),
            **levels,
            reg_branches=head.reg_branches,
            memory_text=fused,
            text_attention_mask=~visible,
        )
        last = states.shape[0] - 1
        logits = head.cls_branches[last](states[last], fused, visible)
        boxes = head.reg_branches[last](states[last]) + inverse_sigmoid(references[last])

        scores = logits.sigmoid().flatten(1)  # (batch, num_queries * num_prompts)
        limit = min(self.limit, scores.shape[1], head.test_cfg.get('max_per_chunk') or self.limit)
        scores, index = scores.topk(limit)
        boxes = _take(bbox_cxcywh_to_xyxy(boxes.sigmoid()), index // len(prompts)) * self.pixels
        boxes = torch.minimum(boxes.clamp(min=0), self.pixels)
        return boxes, scores, prompts.labels.gather(1, index % len(prompts))


def exportable_copy(model: DINOR1) -> DINOR1:
    """A copy whose modules have the forms that the top of this file tells of."""
    model = plain_copy(model)
    for module in model.modules():
        if isinstance(module, ShiftWindowMSA):
            module.window_reverse = MethodType(_window_reverse, module)
    return model


def plain_copy(model: DINOR1) -> DINOR1:
    """On the CPU, in eval mode and float32, without the frozen reference model."""
    model = deepcopy(model, {id(model.reference_model): None}).cpu().float().eval()
    model.use_autocast = False
    return model


def _window_reverse(self: ShiftWindowMSA, windows: Tensor, height: int, width: int) -> Tensor:
    """(batch * num_windows, size, size, dim) to (batch, height, width, dim)."""
    size = self.window_size
    rows, columns = height // size, width // size
    grid = windows.view(-1, rows, columns, size, size, windows.shape[-1])
    return grid.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])


def _take(boxes: Tensor, index: Tensor) -> Tensor:
    """(batch, m, 4) at (batch, n) -> (batch, n, 4)."""
    return boxes.gather(1, index[..., None].expand(-1, -1, 4))
