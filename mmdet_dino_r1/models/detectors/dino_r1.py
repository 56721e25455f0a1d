"""DINO-R1: Grounding DINO that is prompted by boxes (arXiv 2505.24025).

The stages, in the order in which ``loss`` and ``predict`` call them:

    image --extract_feat--> feature maps --pre_transformer--> flattened features
          --encode_image--> the same, and their memory where it depends on no prompt
    boxes --BatchBoxes.read, prompt_sampler--> ExemplarChoice --prompt_encoder--> VisualPrompts
    (in prediction from the samples' own boxes, or from a prompt bank)
    both --forward_encoder--> memory, fused prompts
         --pre_decoder (query_selector)--> QuerySelection --forward_decoder--> hidden states
         --bbox_head--> detections, or matching, rewards and losses

With ``fusion=False`` (late prompting) prompts only select and classify: image tokens and queries
do not see them, so the image is encoded once, however many classes or chunks there are.

Shapes: bs, num_points (sum of H*W over levels), num_queries, num_prompts, num_exemplars, dim.
Names: encoder_inputs, decoder_inputs = what ``pre_transformer`` returns; image = what
``encode_image`` returns; choice = exemplars of the step; ground_truth = boxes that have a prompt;
batch_data_samples = meta information and, in training, ``gt_instances``.
"""

from __future__ import annotations

import warnings

import torch
from mmdet.models.detectors import GroundingDINO
from mmdet.models.layers import SinePositionalEncoding
from mmdet.registry import MODELS, TASK_UTILS
from mmdet.structures import SampleList
from torch import Tensor, nn

from ...structures import (
    BatchBoxes,
    ExemplarChoice,
    VisualPrompts,
    load_prompt_bank,
    take_tokens,
)
from ...utils.finite import StepDiagnostics, check_finite
from ..dense_heads.dino_r1_head import best_of
from ..layers import (
    DenoisingQueries,
    PromptDecoder,
    PromptFusionEncoder,
    flatten_levels,
    image_padding,
    proposals,
    token_grid,
)
from ..losses import FrozenProjection
from ..task_modules import gather_embeddings
from .equal_keys import explain_unequal
from .prompt_banks import PromptBanksMixin
from .reference_model import ReferenceModel
from .warm_start import report_when_loading


@MODELS.register_module()
class DINOR1(PromptBanksMixin, GroundingDINO):
    """Detect every instance of the classes shown by visual prompts.

    ``bbox_head.loss_grqo`` decides what is trained: a ``GRQOLoss`` makes it DINO-R1, None the
    supervised baseline VIS-GDINO. Parameters have mmdet's names, so ``load_from`` a Grounding
    DINO checkpoint warm-starts the model.

    Prompts at test time come with each data sample (``prompt_instances``: ``labels`` and
    ``bboxes`` (x1, y1, x2, y2) in pixels of the network input) or from a prompt bank: the one
    that the sample's ``dataset_name`` names, where several were set, else ``prompt_bank``.
    ``test_cfg.chunk_size`` splits many classes into chunks (0: none), which share the image
    features; every chunk selects its own queries and gives at most ``test_cfg.max_per_chunk``
    detections (0: as many as ``max_per_img``). ``test_cfg.negatives`` lowers the score of a class
    where another one fits better (see :class:`NegativesRule`).

    Args:
        prompt_encoder: config of :class:`VisualPromptEncoder` or :class:`JointPromptEncoder`.
        prompt_sampler: config of what draws exemplars in training.
        query_selector: config of :class:`VisualGuidedQuerySelector`.
        fusion: whether image tokens, queries and prompts see each other; False: late prompting.
        prompts_from: what the prompt encoder looks at: the features of the 'neck' or, without
            fusion, the encoder's 'memory'.
        use_autocast: extract features in half precision (mmdet 3.3.0 has no such option).
        gather_prompts: train with the classes and exemplars of all ranks, as if their batches
            were one: more negatives where a rank has few images.
        text_alignment: config of :class:`PromptTextContrastiveLoss`, which adds the frozen
            ``text_feat_map``; None: no contrast with text.
        prompt_contrast: config of :class:`PromptContrastiveLoss`, which adds the buffers of its
            memory; None: no contrast of the prompts with one another.
        prompt_bank: file of a bank to begin with, for tools that are given a config and a
            checkpoint alone; ``PromptBankHook`` replaces it.
        **kwargs: those of mmdet's ``GroundingDINO`` but for ``language_model``.

    Attributes:
        reference_model: the frozen snapshot for GRQO's KL.
        step_diagnostics: what to say of the last training step should its gradients go wrong.

    Raises:
        ValueError: ``prompts_from`` is neither, or the memory where it depends on the prompts; or
            keys that set the same size differ, such as ``num_feature_levels`` and
            ``neck.num_outs``; the message names them all.
    """

    def __init__(
        self,
        *args,
        prompt_encoder: dict,
        prompt_sampler: dict | None = None,
        query_selector: dict | None = None,
        fusion: bool = True,
        prompts_from: str = 'neck',
        use_autocast: bool = False,
        gather_prompts: bool = False,
        text_alignment: dict | None = None,
        prompt_contrast: dict | None = None,
        prompt_bank: str | None = None,
        **kwargs,
    ) -> None:
        if unequal := explain_unequal(dict(kwargs, prompt_encoder=prompt_encoder)):
            raise ValueError(unequal)
        if prompts_from not in ('neck', 'memory'):
            raise ValueError(f"model.prompts_from is 'neck' or 'memory', got {prompts_from!r}.")
        if fusion and prompts_from == 'memory':
            raise ValueError(
                "model.prompts_from='memory' needs model.fusion=False: with fusion the memory "
                "depends on the prompts. Set both, or prompts_from='neck'."
            )
        self.fusion = fusion
        self.prompts_from = prompts_from
        # built by _init_layers, which the parents call
        self.prompt_encoder = prompt_encoder
        self.query_selector = query_selector or dict(type='VisualGuidedQuerySelector')
        super().__init__(None, *args, **kwargs)
        self.dn_query_generator = DenoisingQueries(**kwargs['dn_cfg'])  # completed by the parent
        self.use_autocast = use_autocast
        self.gather_prompts = gather_prompts
        self.prompt_sampler = TASK_UTILS.build(prompt_sampler or dict(type='InBatchPromptSampler'))
        if prompt_bank is not None:
            self.set_prompt_bank(load_prompt_bank(prompt_bank))
        self.reference_model = ReferenceModel()
        self.prompt_contrast = None
        if prompt_contrast is not None:
            sizes = dict(num_classes=self.bbox_head.num_classes, dim=self.embed_dims)
            self.prompt_contrast = MODELS.build(prompt_contrast, default_args=sizes)
        self.text_alignment = None
        if text_alignment is not None:
            self.text_alignment = MODELS.build(text_alignment)
            self.text_feat_map = FrozenProjection(self.text_alignment.text_dim, self.embed_dims)
        report_when_loading(self)

    def _init_layers(self) -> None:
        self.positional_encoding = SinePositionalEncoding(**self.positional_encoding)
        self.encoder = PromptFusionEncoder(**self.encoder, fusion=self.fusion)
        self.decoder = PromptDecoder(**self.decoder, fusion=self.fusion)
        self.embed_dims = self.encoder.embed_dims
        self.query_embedding = nn.Embedding(self.num_queries, self.embed_dims)
        self.level_embed = nn.Parameter(torch.empty(self.num_feature_levels, self.embed_dims))
        self.memory_trans_fc = nn.Linear(self.embed_dims, self.embed_dims)
        self.memory_trans_norm = nn.LayerNorm(self.embed_dims)
        self.query_selector = MODELS.build(dict(self.query_selector, num_queries=self.num_queries))
        self.prompt_encoder = MODELS.build(self.prompt_encoder)

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

    def encode_image(self, encoder_inputs: dict) -> dict:
        """Without fusion the encoder's ``memory`` (bs, num_points, dim) beside what it is made of.

        Every stage after it takes it from there. With fusion it is made with the prompts.
        """
        if self.fusion:
            return encoder_inputs
        return dict(encoder_inputs, memory=self.run_encoder(**encoder_inputs)[0])

    def run_encoder(
        self, feat: Tensor, feat_mask: Tensor | None, feat_pos: Tensor, **others
    ) -> tuple[Tensor, Tensor | None]:
        """Run the ``encoder`` itself, under its own names."""
        return self.encoder(query=feat, query_pos=feat_pos, key_padding_mask=feat_mask, **others)

    def encode_exemplars(self, image: dict, choice: ExemplarChoice) -> Tensor:
        """(num_local, dim) embeddings of the exemplars that are chosen here."""
        layout = ('feat_mask', 'spatial_shapes', 'level_start_index', 'valid_ratios')
        return self.prompt_encoder(
            image['memory' if self.prompts_from == 'memory' else 'feat'],
            **{name: image[name] for name in layout},
            image_index=choice.local_images,
            boxes=choice.local_boxes,
            box_sets=choice.box_sets,
        )

    def training_prompts(self, image: dict, choice: ExemplarChoice) -> VisualPrompts:
        """All images get all classes: prompt u stands for the u-th class of the batch."""
        local = self.encode_exemplars(image, choice)
        # ([bs,] num_prompts, dim): each image may have prompts of its own for the same classes
        prompts = choice.mean_over_class(gather_embeddings(local, choice))
        labels = torch.arange(prompts.shape[-2], device=prompts.device)
        return VisualPrompts.shared(prompts, labels, len(image['feat']))

    def pre_transformer(
        self, mlvl_feats: tuple[Tensor, ...], batch_data_samples: SampleList
    ) -> tuple[dict, dict]:
        """(bs, dim, h, w) maps of each level -> arguments for the encoder and for the decoder.

        As the parent's, made without waiting for the device; ``spatial_shapes`` are numbers.
        """
        shapes, device = [tuple(feat.shape[-2:]) for feat in mlvl_feats], mlvl_feats[0].device
        img_shapes = [sample.img_shape[:2] for sample in batch_data_samples]
        input_shape = batch_data_samples[0].batch_input_shape
        padding = image_padding(img_shapes, input_shape, shapes, device)
        feat, feat_pos = flatten_levels(
            mlvl_feats, padding, self.positional_encoding, self.level_embed
        )
        levels = dict(
            spatial_shapes=shapes,
            level_start_index=token_grid(shapes, device).starts,
            valid_ratios=padding.valid_ratios,
        )
        encoder_inputs = dict(feat=feat, feat_mask=padding.token_mask, feat_pos=feat_pos)
        return encoder_inputs | levels, dict(memory_mask=padding.token_mask) | levels

    def forward_encoder(
        self,
        feat: Tensor,
        feat_mask: Tensor | None,
        feat_pos: Tensor,
        text_dict: dict,
        memory: Tensor | None = None,
        token_indices: Tensor | None = None,
        **levels,
    ) -> dict:
        """Let image and prompts see each other; gives the arguments of :meth:`pre_decoder`.

        Arguments are the parent's, and the ``memory`` of :meth:`encode_image` where there is one.
        ``token_indices`` (bs, n) are the image tokens that are wanted, None: all. In the result
        ``memory`` (bs, num_points or n, dim) and ``memory_text`` (bs, num_prompts, dim) are fused
        (without fusion the prompts are as given). ``invalid_mask`` (bs, num_points or n) is True
        where no query may come from, ``text_token_mask`` (bs, num_prompts) where the prompt counts.
        ``proposals`` (bs, num_points, 4) are boxes (cx, cy, w, h) around all tokens, before the
        sigmoid.
        """
        visible = text_dict['text_token_mask']
        memory_text = text_dict['embedded']
        if memory is None:
            prompts = dict(memory_text=memory_text, text_attention_mask=~visible)
            memory, memory_text = self.run_encoder(
                feat, feat_mask, feat_pos, token_indices=token_indices, **prompts, **levels
            )
        elif token_indices is not None:
            memory = take_tokens(memory, token_indices)
        grid = token_grid(levels['spatial_shapes'], feat.device)
        boxes, invalid_mask = proposals(grid, levels['valid_ratios'], feat_mask)
        if token_indices is not None:
            invalid_mask = invalid_mask.gather(1, token_indices)
        prompts = dict(memory_text=memory_text, text_token_mask=visible)
        return dict(prompts, memory=memory, invalid_mask=invalid_mask, proposals=boxes)

    def selectable(self, memory: Tensor, invalid_mask: Tensor) -> Tensor:
        """(bs, n, dim) memory as the selection sees it: blank where ``invalid_mask`` (bs, n) is."""
        memory = memory.masked_fill(invalid_mask[..., None], 0.0)
        return self.memory_trans_norm(self.memory_trans_fc(memory))

    def pre_decoder(
        self,
        memory: Tensor,
        invalid_mask: Tensor,
        proposals: Tensor,
        memory_text: Tensor,
        text_token_mask: Tensor,
        ground_truth: BatchBoxes | None = None,
    ) -> tuple[dict, dict]:
        """Select queries and, where there is ground truth, add the denoising ones.

        Takes what :meth:`forward_encoder` gives; boxes of ``proposals`` are (cx, cy, w, h). Gives
        arguments of :meth:`forward_decoder`, among them (bs, num_queries, dim) queries, and of the
        head: the prompts, ``selection`` and, with ground truth, ``dn_meta``.
        """
        selection = self.query_selector(
            self.selectable(memory, invalid_mask),
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
        if ground_truth is not None:
            dn_query, dn_boxes, dn_mask, dn_meta = self.dn_query_generator(ground_truth)
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
        image: dict,
        decoder_inputs: dict,
        prompts: VisualPrompts,
        ground_truth: BatchBoxes | None = None,
    ) -> dict:
        """Fusion, selection and decoder, for one set of prompts; gives what the head needs.

        That is ``hidden_states``, ``references``, ``selection``, ``memory_text``,
        ``text_token_mask`` and, with ground truth, ``dn_meta``.
        """
        encoded = self.forward_encoder(**image, text_dict=prompts.as_text_dict())
        selected, head_inputs = self.pre_decoder(**encoded, ground_truth=ground_truth)
        return head_inputs | self.forward_decoder(**decoder_inputs, **selected)

    # --- training -----------------------------------------------------------------------

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor]:
        """Losses of (bs, 3, H, W) normalised images whose samples have ``gt_instances``.

        Keys without ``loss`` are logged only.

        Raises:
            ValueError: a label is not below ``bbox_head.num_classes``.
            FloatingPointError: a loss, a match cost or a box is not finite, or a box is inverted.
        """
        self.step_diagnostics = StepDiagnostics(self, batch_data_samples)
        with self.step_diagnostics.explaining(batch_inputs):
            # waits: before the device is given work
            boxes = BatchBoxes.read(batch_data_samples, joint=self.prompt_encoder.joint)
            feats = self.extract_feat(batch_inputs)
            encoder_inputs, decoder_inputs = self.pre_transformer(feats, batch_data_samples)
            image = self.encode_image(encoder_inputs)
            draw = self.prompt_sampler.across_ranks if self.gather_prompts else self.prompt_sampler
            choice = draw(boxes)  # once: the reference model gets the same
            self._check_labels(choice)
            prompts = self.training_prompts(image, choice)
            ground_truth = boxes.prompted(choice)
            head_inputs = self.run_transformer(image, decoder_inputs, prompts, ground_truth)
            reference_logits = None
            if self.bbox_head.needs_reference:
                shared = self.bbox_head.loss_grqo.shared_exemplars
                reference_logits = self.reference_model.objectness_logits(
                    batch_inputs,
                    batch_data_samples,
                    choice if shared else draw(boxes),
                    head_inputs['selection'].indices,
                )
            losses = self.bbox_head.loss(
                **head_inputs,
                choice=choice,
                reference_logits=reference_logits,
                ground_truth=ground_truth,
            )
            if self.text_alignment is not None or self.prompt_contrast is not None:
                everything = boxes.chosen()  # not only the exemplars drawn
                embeddings = self.encode_exemplars(image, everything)
            if self.text_alignment is not None:
                losses |= self.text_alignment(embeddings, everything.labels, self.text_feat_map)
            if self.prompt_contrast is not None:
                losses |= self.prompt_contrast(embeddings, everything.labels)
            check_finite(losses, batch_data_samples)
        return losses

    def _check_labels(self, choice: ExemplarChoice) -> None:
        highest, num_classes = int(choice.labels.max()), self.bbox_head.num_classes
        if highest >= num_classes:
            raise ValueError(
                f'The training set has a label {highest}, but '
                f'model.bbox_head.num_classes={num_classes} (the size of the denoising label '
                'embedding). Set it to at least the number of classes of the training set.'
            )

    # --- prediction ---------------------------------------------------------------------

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Detect on (bs, 3, H, W) normalised images; labels are those of the prompts.

        Samples may carry ``prompt_instances``. With ``rescale`` boxes are in the original image's
        pixels.
        """
        feats = self.extract_feat(batch_inputs)
        encoder_inputs, decoder_inputs = self.pre_transformer(feats, batch_data_samples)
        image = self.encode_image(encoder_inputs)
        prompts = self.prompts_for(image, batch_data_samples)
        chunk_size, chunks = self.test_cfg.get('chunk_size', 0), []
        given = any(prompts.negatives)
        self.bbox_head.negatives.refuse_chunks(chunk_size, len(prompts), given)
        for chunk in prompts.chunks(chunk_size):
            outputs = self.run_transformer(image, decoder_inputs, chunk)
            del outputs['selection']  # which training supervises
            found = self.bbox_head.predict(
                **outputs, prompts=chunk, batch_data_samples=batch_data_samples, rescale=rescale
            )
            chunks.append(found)
        limit = self.test_cfg.get('max_per_img', self.num_queries)
        results = [best_of(of_image, limit) for of_image in zip(*chunks, strict=True)]
        return self.add_pred_to_datasample(batch_data_samples, results)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> tuple[Tensor, ...]:
        """Logits and boxes of every decoder layer, without post-processing.

        mmdet's get_flops comes here with a new model. Where nothing gave prompts, blank ones
        stand in, with a warning: as many as ``bbox_head.num_classes``.
        """
        feats = self.extract_feat(batch_inputs)
        encoder_inputs, decoder_inputs = self.pre_transformer(feats, batch_data_samples)
        image = self.encode_image(encoder_inputs)
        if self.prompt_banks or 'prompt_instances' in batch_data_samples[0]:
            prompts = self.prompts_for(image, batch_data_samples)
        else:
            number = self.bbox_head.num_classes
            warnings.warn(
                f'No visual prompts: {number} blank ones stand in (model.bbox_head.num_classes), '
                'which will do for counting operations. model.prompt_bank=FILE gives real ones.',
                stacklevel=2,
            )
            feat = image['feat']
            labels = torch.arange(number, device=feat.device)
            blank = feat.new_zeros(number, self.embed_dims)
            prompts = VisualPrompts.shared(blank, labels, len(feat))
        outputs = self.run_transformer(image, decoder_inputs, prompts)
        del outputs['selection']
        return self.bbox_head(**outputs)
