"""DINO-R1: Grounding DINO that is prompted by boxes (arXiv 2505.24025).

The stages, in the order in which ``loss`` and ``predict`` call them:

    image --extract_feat--> feature maps --pre_transformer--> flattened features
    boxes --prompt_sampler--> ExemplarChoice --prompt_encoder--> VisualPrompts
    both --forward_encoder--> memory, fused prompts
         --pre_decoder (query_selector)--> QuerySelection --forward_decoder--> hidden states
         --bbox_head--> detections, or matching, rewards and losses

Shapes: bs, num_points (sum of H*W over levels), num_queries, num_prompts, dim.
Names: encoder_inputs, decoder_inputs = what ``pre_transformer`` returns; choice = exemplars of the
step; batch_data_samples = meta information and, in training, ``gt_instances``.
"""

from __future__ import annotations

import torch
from mmdet.models.detectors import GroundingDINO
from mmdet.models.layers import SinePositionalEncoding
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import SampleList
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ...structures import ExemplarChoice, PromptBank, VisualPrompts
from ..layers import PromptDecoder, PromptFusionEncoder
from ..losses import FrozenProjection
from ..task_modules import gather_embeddings, normalised_boxes, prompted_boxes_only
from .reference_model import ReferenceModel
from .warm_start import report_when_loading


@MODELS.register_module()
class DINOR1(GroundingDINO):
    """Detect every instance of the classes shown by visual prompts.

    ``bbox_head.loss_grqo`` decides what is trained: a ``GRQOLoss`` makes it DINO-R1, None the
    supervised baseline VIS-GDINO. Parameters have mmdet's names, so ``load_from`` a Grounding
    DINO checkpoint warm-starts the model.

    Prompts at test time come with each data sample (``prompt_instances``: ``labels`` and
    ``bboxes`` (x1, y1, x2, y2) in pixels of the network input) or from a prompt bank: the one
    that the sample's ``dataset_name`` names, where several were set, else ``prompt_bank``.
    ``test_cfg.chunk_size`` splits many classes into chunks (0: none), which share the image
    features; every chunk selects its own queries and gives at most ``test_cfg.max_per_chunk``
    detections (0: as many as ``max_per_img``).

    Args:
        prompt_encoder: config of :class:`VisualPromptEncoder`.
        prompt_sampler: config of what draws exemplars in training.
        query_selector: config of :class:`VisualGuidedQuerySelector`.
        use_autocast: extract features in half precision (mmdet 3.3.0 has no such option).
        gather_prompts: train with the classes and exemplars of all ranks, as if their batches
            were one: more negatives where a rank has few images.
        text_alignment: config of :class:`PromptTextContrastiveLoss`, which adds the frozen
            ``text_feat_map``; None: no contrast with text.
        **kwargs: those of mmdet's ``GroundingDINO`` but for ``language_model``.

    Attributes:
        prompt_banks: what :meth:`set_prompt_bank` was given, by name of the dataset; None is
            the name of the one for all.
        reference_model: the frozen snapshot for GRQO's KL.

    Raises:
        ValueError: ``prompt_encoder.num_levels`` is not the model's number of feature levels.
    """

    def __init__(
        self,
        *args,
        prompt_encoder: dict,
        prompt_sampler: dict | None = None,
        query_selector: dict | None = None,
        use_autocast: bool = False,
        gather_prompts: bool = False,
        text_alignment: dict | None = None,
        **kwargs,
    ) -> None:
        # built by _init_layers, which the parents call
        self.prompt_encoder = prompt_encoder
        self.query_selector = query_selector or dict(type='VisualGuidedQuerySelector')
        super().__init__(None, *args, **kwargs)
        self.use_autocast = use_autocast
        self.gather_prompts = gather_prompts
        self.prompt_sampler = TASK_UTILS.build(prompt_sampler or dict(type='InBatchPromptSampler'))
        self.prompt_banks: dict[str | None, PromptBank] = {}
        self.reference_model = ReferenceModel()
        self.text_alignment = None
        if text_alignment is not None:
            self.text_alignment = MODELS.build(text_alignment)
            self.text_feat_map = FrozenProjection(self.text_alignment.text_dim, self.embed_dims)
        report_when_loading(self)

    def _init_layers(self) -> None:
        self.positional_encoding = SinePositionalEncoding(**self.positional_encoding)
        self.encoder = PromptFusionEncoder(**self.encoder)
        self.decoder = PromptDecoder(**self.decoder)
        self.embed_dims = self.encoder.embed_dims
        self.query_embedding = nn.Embedding(self.num_queries, self.embed_dims)
        self.level_embed = nn.Parameter(torch.empty(self.num_feature_levels, self.embed_dims))
        self.memory_trans_fc = nn.Linear(self.embed_dims, self.embed_dims)
        self.memory_trans_norm = nn.LayerNorm(self.embed_dims)
        self.query_selector = MODELS.build(dict(self.query_selector, num_queries=self.num_queries))
        self.prompt_encoder = MODELS.build(self.prompt_encoder)
        if self.prompt_encoder.num_levels != self.num_feature_levels:
            raise ValueError(
                f'model.prompt_encoder.num_levels={self.prompt_encoder.num_levels} but '
                f'model.num_feature_levels={self.num_feature_levels}; they must be equal.'
            )

    def init_weights(self) -> None:
        """Initialise as DINO does (Grounding DINO adds text parts, which are not here)."""
        super(GroundingDINO, self).init_weights()

    # --- stages -------------------------------------------------------------------------

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """(bs, 3, H, W) images -> feature maps (bs, dim, h, w), one per level."""
        if not self.use_autocast:
            return super().extract_feat(batch_inputs)
        with torch.autocast(batch_inputs.device.type):
            features = super().extract_feat(batch_inputs)
        return tuple(feature.float() for feature in features)

    def encode_exemplars(self, encoder_inputs: dict, choice: ExemplarChoice) -> Tensor:
        """(num_own, dim) embeddings of the chosen boxes here, from features before fusion."""
        inputs = {name: value for name, value in encoder_inputs.items() if name != 'feat_pos'}
        return self.prompt_encoder(**inputs, image_index=choice.image_index, boxes=choice.boxes)

    def training_prompts(self, encoder_inputs: dict, choice: ExemplarChoice) -> VisualPrompts:
        """All images get all classes: prompt u stands for the u-th class of the batch."""
        own = self.encode_exemplars(encoder_inputs, choice)
        # ([bs,] num_prompts, dim): each image may have prompts of its own for the same classes
        prompts = choice.mean_over_class(gather_embeddings(own, choice))
        batch_size = len(encoder_inputs['feat'])
        return VisualPrompts.shared(prompts, torch.arange(prompts.shape[-2]), batch_size)

    def pre_decoder(
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        spatial_shapes: Tensor,
        memory_text: Tensor,
        text_token_mask: Tensor,
        batch_data_samples: SampleList,
    ) -> tuple[dict, dict]:
        """Select queries and, in training, add the denoising ones.

        Args: as the parent's; ``memory`` is (bs, num_points, dim), ``text_token_mask``
            (bs, num_prompts) and True where the prompt counts.

        Returns:
            Keyword arguments of :meth:`forward_decoder`, and of the head (``selection``,
            ``dn_meta`` in training, ``memory_text``, ``text_token_mask``).
        """
        tokens, proposals = self.gen_encoder_output_proposals(memory, memory_mask, spatial_shapes)
        selection = self.query_selector(
            tokens,
            proposals,
            memory_text,
            text_token_mask,
            self.bbox_head.cls_branches[-1],
            self.bbox_head.reg_branches[-1],
        )
        query = self.query_embedding.weight.expand(len(memory), -1, -1)
        reference_points = selection.boxes_unact.detach()
        prompts = dict(memory_text=memory_text, text_token_mask=text_token_mask)
        head_inputs = dict(prompts, selection=selection)
        dn_mask = None
        if self.training:
            dn_query, dn_boxes, dn_mask, dn_meta = self.dn_query_generator(batch_data_samples)
            query = torch.cat([dn_query, query], dim=1)
            reference_points = torch.cat([dn_boxes, reference_points], dim=1)
            head_inputs['dn_meta'] = dn_meta
        decoder_inputs = dict(
            query=query,
            memory=memory,
            reference_points=reference_points.sigmoid(),
            dn_mask=dn_mask,
            memory_text=memory_text,
            text_attention_mask=~text_token_mask,
        )
        return decoder_inputs, head_inputs

    def run_transformer(
        self,
        encoder_inputs: dict,
        decoder_inputs: dict,
        prompts: VisualPrompts,
        batch_data_samples: SampleList,
    ) -> dict:
        """Fusion, selection and decoder, for one set of prompts.

        Returns:
            What the head needs: ``hidden_states``, ``references``, ``selection``,
            ``memory_text``, ``text_token_mask`` and, in training, ``dn_meta``.
        """
        encoded = self.forward_encoder(**encoder_inputs, text_dict=prompts.as_text_dict())
        selected, head_inputs = self.pre_decoder(**encoded, batch_data_samples=batch_data_samples)
        return head_inputs | self.forward_decoder(**decoder_inputs, **selected)

    def objectness_at(
        self,
        batch_inputs: Tensor,
        batch_data_samples: SampleList,
        choice: ExemplarChoice,
        indices: Tensor,
    ) -> Tensor:
        """The path up to the objectness, (bs, num_queries), for the reference model's snapshot.

        Args and returns: see :meth:`ReferenceModel.objectness_logits`.
        """
        feats = self.extract_feat(batch_inputs)
        encoder_inputs, _ = self.pre_transformer(feats, batch_data_samples)
        prompts = self.training_prompts(encoder_inputs, choice)
        encoded = self.forward_encoder(**encoder_inputs, text_dict=prompts.as_text_dict())
        tokens, _ = self.gen_encoder_output_proposals(
            encoded['memory'], encoded['memory_mask'], encoded['spatial_shapes']
        )
        return self.query_selector.objectness_logits(
            tokens,
            encoded['memory_text'],
            encoded['text_token_mask'],
            self.bbox_head.cls_branches[-1],
            indices,
        )

    # --- training -----------------------------------------------------------------------

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of a batch; keys without ``loss`` are logged only.

        Args:
            batch_inputs: (bs, 3, H, W) normalised images.
            batch_data_samples: with ``gt_instances``.

        Raises:
            ValueError: a label is not below ``bbox_head.num_classes``.
        """
        feats = self.extract_feat(batch_inputs)
        encoder_inputs, decoder_inputs = self.pre_transformer(feats, batch_data_samples)
        draw = self.prompt_sampler.across_ranks if self.gather_prompts else self.prompt_sampler
        choice = draw(batch_data_samples)  # once, for the reference too
        self._check_labels(choice)
        prompts = self.training_prompts(encoder_inputs, choice)
        targets = prompted_boxes_only(batch_data_samples, choice)
        head_inputs = self.run_transformer(encoder_inputs, decoder_inputs, prompts, targets)
        reference_logits = None
        if self.bbox_head.needs_reference:
            reference_logits = self.reference_model.objectness_logits(
                batch_inputs, batch_data_samples, choice, head_inputs['selection'].indices
            )
        losses = self.bbox_head.loss(
            **head_inputs,
            choice=choice,
            reference_logits=reference_logits,
            batch_data_samples=targets,
        )
        if self.text_alignment is not None:
            losses |= self.text_alignment_loss(encoder_inputs, batch_data_samples)
        return losses

    def text_alignment_loss(
        self, encoder_inputs: dict, batch_data_samples: SampleList
    ) -> dict[str, Tensor]:
        """Contrast of all the batch's boxes, not only those drawn, with their class names."""
        boxes = _carried_exemplars(batch_data_samples, 'gt_instances')
        if len(boxes) == 0:
            boxes = ExemplarChoice.placeholder(boxes.boxes)
        prompts = self.encode_exemplars(encoder_inputs, boxes)
        return self.text_alignment(prompts, boxes.labels, self.text_feat_map)

    def _check_labels(self, choice: ExemplarChoice) -> None:
        highest, num_classes = int(choice.labels.max()), self.bbox_head.num_classes
        if highest >= num_classes:
            raise ValueError(
                f'The training set has a label {highest}, but '
                f'model.bbox_head.num_classes={num_classes} (the size of the denoising label '
                'embedding). Set it to at least the number of classes of the training set.'
            )

    # --- prompts and prediction ---------------------------------------------------------

    @property
    def prompt_bank(self) -> PromptBank | None:
        """The bank for all images that have no other prompts, or None."""
        return self.prompt_banks.get(None)

    def set_prompt_bank(self, bank: PromptBank | None, dataset_name: str | None = None) -> None:
        """Prompts for all images, or those of one dataset, that do not bring their own.

        Args:
            bank: its rows stand for ``bank.labels``; None removes what was set before.
            dataset_name: of the data samples that the bank is for; None: of all others.

        Raises:
            ValueError: the bank was made by a model of another width.
        """
        if bank is None:
            self.prompt_banks.pop(dataset_name, None)
            return
        if bank.dim != self.embed_dims:
            raise ValueError(
                f'The prompt bank has width {bank.dim}, the model needs '
                f'{self.embed_dims}; rebuild the bank with this model.'
            )
        self.prompt_banks[dataset_name] = bank

    @torch.no_grad()
    def encode_reference_images(self, data: dict) -> tuple[Tensor, Tensor]:
        """Encode exemplars of a batch from a data loader (see ``ExemplarDataset``).

        Args:
            data: ``inputs`` and ``data_samples`` with ``prompt_instances``, before the data
                preprocessor.

        Returns:
            (num_exemplars, dim) embeddings and (num_exemplars,) labels, image by image.
        """
        data = self.data_preprocessor(data, False)
        samples = data['data_samples']
        encoder_inputs, _ = self.pre_transformer(self.extract_feat(data['inputs']), samples)
        choice = _carried_exemplars(samples)
        return self.encode_exemplars(encoder_inputs, choice), choice.labels

    def prompts_for(self, encoder_inputs: dict, batch_data_samples: SampleList) -> VisualPrompts:
        """Each image's own prompts where the samples carry them, else the bank's.

        Several boxes of a class on one image are averaged.

        Raises:
            RuntimeError: there are neither, or only some samples carry prompts.
        """
        carried = ['prompt_instances' in sample for sample in batch_data_samples]
        if not any(carried):
            return self._prompts_from_banks(encoder_inputs['feat'], batch_data_samples)
        if not all(carried):
            raise RuntimeError('Some images of the batch carry prompt_instances, others do not.')
        choice = _carried_exemplars(batch_data_samples)
        if len(choice) == 0:
            nothing = encoder_inputs['feat'].new_zeros(0, self.embed_dims)
            no_labels = choice.labels.to(nothing.device)
            return VisualPrompts.padded(
                [nothing] * len(batch_data_samples), [no_labels] * len(batch_data_samples)
            )
        embeddings = self.encode_exemplars(encoder_inputs, choice)
        per_image, labels_per_image = [], []
        for image in range(len(batch_data_samples)):
            mine = choice.image_index == image
            labels = choice.labels[mine]
            classes = labels.unique()
            member = (labels == classes[:, None]).to(embeddings)  # (classes, boxes)
            per_image.append(member @ embeddings[mine] / member.sum(dim=1, keepdim=True))
            labels_per_image.append(classes.to(embeddings.device))
        return VisualPrompts.padded(per_image, labels_per_image)

    def _prompts_from_banks(self, like: Tensor, batch_data_samples: SampleList) -> VisualPrompts:
        """Each image's bank, in the type and on the device of ``like``."""
        names = [sample.get('dataset_name') for sample in batch_data_samples]
        names = [name if name in self.prompt_banks else None for name in names]
        if None in names and self.prompt_bank is None:
            raise RuntimeError(
                'No visual prompts: add PromptBankHook to default_hooks, call '
                'set_prompt_bank(...), or give every data sample prompt_instances.'
            )
        banks = {
            name: (bank.embeddings.to(like), bank.label_tensor.to(like.device))
            for name, bank in self.prompt_banks.items()
            if name in names
        }
        if len(banks) == 1:
            return VisualPrompts.shared(*banks[names[0]], len(names))
        return VisualPrompts.padded(*zip(*(banks[name] for name in names), strict=True))

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Detect; labels are those of the prompts.

        Args:
            batch_inputs: (bs, 3, H, W) normalised images.
            batch_data_samples: meta information, maybe ``prompt_instances``.
            rescale: boxes in the original image's pixels.
        """
        feats = self.extract_feat(batch_inputs)
        encoder_inputs, decoder_inputs = self.pre_transformer(feats, batch_data_samples)
        prompts = self.prompts_for(encoder_inputs, batch_data_samples)
        chunks = []
        for chunk in prompts.chunks(self.test_cfg.get('chunk_size', 0)):
            outputs = self.run_transformer(
                encoder_inputs, decoder_inputs, chunk, batch_data_samples
            )
            chunks.append(
                self.bbox_head.predict(
                    outputs['hidden_states'],
                    outputs['references'],
                    outputs['memory_text'],
                    outputs['text_token_mask'],
                    chunk.labels,
                    batch_data_samples,
                    rescale,
                )
            )
        results = [self._best_of(of_image) for of_image in zip(*chunks, strict=True)]
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _best_of(self, chunks: tuple[InstanceData, ...]) -> InstanceData:
        """The best ``max_per_img`` detections of one image over all chunks."""
        if len(chunks) == 1:
            return chunks[0]
        found = InstanceData.cat(list(chunks))
        limit = min(self.test_cfg.get('max_per_img', self.num_queries), len(found))
        return found[found.scores.topk(limit).indices]

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> tuple[Tensor, ...]:
        """Logits and boxes of every decoder layer, without post-processing."""
        feats = self.extract_feat(batch_inputs)
        encoder_inputs, decoder_inputs = self.pre_transformer(feats, batch_data_samples)
        prompts = self.prompts_for(encoder_inputs, batch_data_samples)
        outputs = self.run_transformer(encoder_inputs, decoder_inputs, prompts, batch_data_samples)
        return self.bbox_head(
            outputs['hidden_states'],
            outputs['references'],
            outputs['memory_text'],
            outputs['text_token_mask'],
        )


def _carried_exemplars(
    batch_data_samples: SampleList, instances: str = 'prompt_instances'
) -> ExemplarChoice:
    """All of the samples' own ``instances``, as a choice of exemplars."""
    boxes = [normalised_boxes(sample, instances) for sample in batch_data_samples]
    labels = [getattr(sample, instances).labels for sample in batch_data_samples]
    return ExemplarChoice(
        image_index=torch.cat([torch.full((len(b),), i) for i, b in enumerate(boxes)]),
        boxes=torch.cat(boxes),
        labels=torch.cat(labels).cpu(),
    )
