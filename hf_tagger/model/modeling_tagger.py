"""`TaggerModel`: a text tower and a vision tower, fused once, scored against every closed tag."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers import initialization as init
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput

from .configuration_tagger import TaggerConfig
from .decisions import attribute_slices, grown, predicted_tags, tag_scores
from .heads import LexicalHead, LogitFusion, NameHead, candidate_attributes
from .kernel_head import KernelHead, feature_blocks
from .lexical_features import ID_KEYS, WEIGHT_KEYS
from .saving import carry, let_others_read, part
from .text import clean_tag
from .towers import (
    IMAGE,
    TEXT,
    ColourHistogram,
    Standardise,
    TaggerEncoder,
    TaggerEncoderOutput,
    TowerFeatures,
    pool_tokens,
)

HUB_OPTIONS = ("repo_id", "commit_message", "commit_description", "private", "revision", "create_pr", "tags")


@dataclass
class TaggerOutput(ModelOutput):
    """
    Args:
        tag_logits: [B, T], all sources together, attribute by attribute in config order.
        none_logits: [B, A], the logit of "no tag of this attribute applies".
        encoder_logits: [B, T + A], what the tag head alone says; the loss of fine-tuning is taken here.
        source_logits: [B, S, T + A], what each of the config's `sources` says; zeros where one has nothing to go by.
            None in training mode.
        fusion_features: [B, A, F], what `LogitFusion` weighs the sources by. None in training mode.
        pooled: fused vector per product [B, H].
        encoded: all that the encoder returned. In training mode only.
        last_hidden_state, attention_mask: fused sequence [B, S, H] and its mask [B, S], if asked for.
        memory: what the decoder attends to, if asked for: `encoder_outputs` of `generate`.
        logits: [B, S, V], of the decoder's next tokens; cache: what it remembers of the tokens so far.
    """

    tag_logits: torch.FloatTensor | None = None
    none_logits: torch.FloatTensor | None = None
    encoder_logits: torch.FloatTensor | None = None
    source_logits: torch.FloatTensor | None = None
    fusion_features: torch.FloatTensor | None = None
    pooled: torch.FloatTensor | None = None
    encoded: TaggerEncoderOutput | None = None
    last_hidden_state: torch.FloatTensor | None = None
    attention_mask: torch.BoolTensor | None = None
    memory: ModelOutput | None = None
    logits: torch.FloatTensor | None = None
    cache: Cache | None = None


class TaggerModel(PreTrainedModel, GenerationMixin):
    """Product tagger: `forward` returns the logits of every closed tag from whatever text and photos a product has;
    `generate` writes free-form tags, if the model has a decoder.

    What the tag head, the exact words (`LexicalHead`) and training products alike (`KernelHead`) say is added up by
    `LogitFusion`.
    """

    config_class = TaggerConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: TaggerConfig):
        super().__init__(config)
        if not config.attributes:
            raise ValueError("the configuration names no attributes: a tagger needs tags to score")
        self.encoder = TaggerEncoder(config)
        self.tag_head = NameHead(config)
        attributes = len(config.attributes)
        if config.fusion == "late":
            self.late_weights = nn.Embedding(attributes, 2)
        self.lexical_head = LexicalHead(config) if "lexical_head" in config.sources else None
        self.kernel_head = None
        if "kernel_head" in config.sources:
            blocks = feature_blocks(self.encoder.feature_widths, self.encoder.stage_widths)
            self.kernel_head = KernelHead(config, blocks)
        self.logit_fusion = LogitFusion(config.attributes, len(config.sources))
        self.register_buffer("candidate_attribute", candidate_attributes(config.attributes))
        self.decoder_memory = self.decoder = None
        if config.decoder:
            self._build_decoder()
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, NameHead):
            init.zeros_(module.bias.weight)
        elif isinstance(module, TaggerModel) and hasattr(module, "late_weights"):
            init.zeros_(module.late_weights.weight)
        elif isinstance(module, LexicalHead | KernelHead | LogitFusion | Standardise | ColourHistogram):
            module.reset()

    def get_input_embeddings(self):
        text_tower = getattr(self.encoder, "text_tower", None)
        return text_tower.get_input_embeddings() if text_tower is not None else None

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        pixel_mask: torch.BoolTensor | None = None,
        lexical_ids: torch.LongTensor | None = None,
        lexical_weights: torch.FloatTensor | None = None,
        name_ids: torch.LongTensor | None = None,
        name_weights: torch.FloatTensor | None = None,
        features: TowerFeatures | None = None,
        output_sequence: bool = False,
        output_memory: bool = False,
        closed_scores: torch.FloatTensor | None = None,
        labels: torch.LongTensor | None = None,
        decoder_input_ids: torch.LongTensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: ModelOutput | None = None,
        cache: Cache | None = None,
        use_cache: bool | None = None,
        **kwargs,
    ) -> TaggerOutput:
        """
        Args:
            input_ids, attention_mask: int64 [B, L]; a row that attends to nothing has no text.
            pixel_values: float [N, 3, H, W], the photos of product after product; pixel_mask: bool [B, I], True for
                each photo of a product, N in all.
            lexical_ids, lexical_weights, name_ids, name_weights: what the processor read of the text for the lexical
                head, see `LexicalFeatures`.
            features: what `encoder.run_towers` returned earlier; the towers then stay idle.
            output_sequence: also return the fused sequence.
            output_memory: also return what `generate` takes as `encoder_outputs`.
            closed_scores: [B, T], what the memory says of the closed tags of products given as `features`; NaN where
                the model itself is to say it.
            labels: int64 [B, S], targets of the decoder, -100 padded: its logits are returned too.
            decoder_input_ids, decoder_attention_mask, cache, use_cache: a step of generation.
            encoder_outputs: an earlier output's `memory`; the encoder then stays idle, and only `logits` are returned.

        A modality that no row has is not run at all; within a batch its tower sees only the rows that have it. Lexical
        head and kernel head are fitted apart and join in evaluation mode only: in training mode the logits are the tag
        head's alone.
        """
        if labels is not None and decoder_input_ids is None:
            self._check_decoder()
            decoder_input_ids, use_cache = self.decoder.shift_right(labels), False
        if encoder_outputs is not None:
            return TaggerOutput(**self._decode(encoder_outputs, decoder_input_ids, decoder_attention_mask, cache,
                                               use_cache))
        output_memory = output_memory or decoder_input_ids is not None
        encoded = self.encoder(input_ids, attention_mask, pixel_values, pixel_mask, features,
                               output_sequence or output_memory)
        encoder_logits = self.score(encoded.pooled, encoded.modality_pooled, encoded.present)
        sources, fusion_features, logits = None, None, encoder_logits
        if not self.training:
            lexical = (lexical_ids, lexical_weights, name_ids, name_weights)
            logits, sources, fusion_features = self.fuse(encoded, encoder_logits, lexical)
        tags = self.config.num_tags
        memory, written = None, {}
        if output_memory:
            self._check_decoder()
            # Lexical and kernel head know the products that a decoder learns from by heart.
            said = encoder_logits if self.decoder.training else logits
            scores = self.tag_scores(said[:, :tags], said[:, tags:])
            if closed_scores is not None:
                # Of a product one of whose modalities is hidden, they would say too much.
                usable = ~closed_scores.isnan() & (encoded.present == features.present).all(1, keepdim=True)
                scores = torch.where(usable, closed_scores, scores)
            memory = self.decoder_memory(encoded, scores, self.decoder.stack.embed_tokens)
        if decoder_input_ids is not None:
            written = self._decode(memory, decoder_input_ids, decoder_attention_mask, cache, use_cache)
        return TaggerOutput(
            tag_logits=logits[:, :tags],
            none_logits=logits[:, tags:],
            encoder_logits=encoder_logits,
            source_logits=sources,
            fusion_features=fusion_features,
            pooled=encoded.pooled,
            encoded=encoded if self.training else None,
            last_hidden_state=encoded.last_hidden_state,
            attention_mask=encoded.attention_mask,
            memory=memory,
            **written,
        )

    def _decode(self, memory, input_ids, attention_mask, cache, use_cache) -> dict:
        self._check_decoder()
        logits, cache = self.decoder(input_ids, memory, attention_mask, cache, use_cache)
        return {"logits": logits, "cache": cache}

    def _check_decoder(self) -> None:
        if self.decoder is None:
            raise ValueError("this model has no decoder to write free-form tags with: add one with recipes/finetune.py "
                             "and recipes/configs/add_decoder.yaml, or train with `model.decoder` in the configuration")

    def save_pretrained(self, save_directory, is_main_process: bool = True, *, push_to_hub: bool = False, **kwargs):
        """As every model's; the decoder's code is saved along only where the model has one."""
        hub = {name: kwargs.pop(name) for name in HUB_OPTIONS if name in kwargs}
        super().save_pretrained(save_directory, is_main_process, **kwargs)
        if not is_main_process or not os.path.isdir(save_directory):
            return
        if self._auto_class is not None:
            carry(self, save_directory, ["decoder"] if self.decoder is not None else [])
        let_others_read(*Path(save_directory).glob("*.safetensors"))
        if push_to_hub:
            self.push_to_hub(hub.pop("repo_id", Path(save_directory).name), token=kwargs.get("token"), **hub)

    @torch.no_grad()
    def generate(self, input_ids=None, attention_mask=None, pixel_values=None, pixel_mask=None, encoder_outputs=None,
                 **kwargs):
        """transformers' `generate`: token ids [B, S] of the tag tokenizer, or what its own options make of it. Products
        as in `forward`, or `encoder_outputs`, the `memory` of an earlier one.

        At most as many tokens are written as the decoder has positions for. Raises ValueError where the model has no
        decoder.
        """
        self._check_decoder()
        prompt = kwargs.get("decoder_input_ids")
        room = self.config.decoder["max_length"] - (1 if prompt is None else prompt.shape[1])
        if not {"max_length", "max_time", "generation_config"} & kwargs.keys():
            kwargs["max_new_tokens"] = min(kwargs.get("max_new_tokens") or room, room)
        words = {name: kwargs.pop(name) for name in (*ID_KEYS, *WEIGHT_KEYS) if name in kwargs}
        if encoder_outputs is None:
            # Through the whole model and not its encoder alone: generation would take a missing text for a batch of
            # start tokens.
            encoder_outputs = self(input_ids, attention_mask, pixel_values, pixel_mask, output_memory=True,
                                   **words).memory
        return super().generate(encoder_outputs=encoder_outputs, **kwargs)

    def add_decoder(self, decoder: dict, tag_tokenizer) -> None:
        """Gives the model an untrained decoder (`decoder` as in `TaggerConfig`), in place. Raises ValueError where it
        has one already."""
        if self.decoder is not None:
            raise ValueError("this model has a decoder already")
        self.config.set_decoder(decoder)
        self._build_decoder()
        self.decoder_memory.to(self.device, self.dtype)
        self.decoder.to(self.device, self.dtype)
        self.generation_config = GenerationConfig.from_model_config(self.config)
        self.decoder_memory.set_tags(self.config, tag_tokenizer)

    def _build_decoder(self) -> None:
        decoder = part("decoder", "a model with a decoder")
        self.decoder_memory = decoder.DecoderMemory(self.config)
        self.decoder = decoder.TagDecoder(self.config)

    def fuse(self, encoded: TaggerEncoderOutput, encoder_logits: torch.Tensor,
             lexical: tuple[torch.Tensor | None, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """All sources together: logits [B, C], those of each source [B, S, C], and the fusion's features [B, A, F].
        Attributes that are "decided_by" the text have the logits of the text alone where a product has one; their
        sources are those of text and photo all the same. `lexical`: the four tensors of `LexicalFeatures`, all None
        where nothing was read of the text."""
        logits, sources, features = self._fuse(encoded, encoder_logits, lexical)
        decided = [entry.get("decided_by") == "text" for entry in self.config.attributes]
        if any(decided) and encoded.features.text is not None and encoded.features.image is not None:
            shown = encoded.features.present & encoded.features.present.new_tensor([True, False])
            alone = self.encoder(features=replace(encoded.features, present=shown, image=None, image_states=None,
                                                  image_mask=None))
            of_text = self._fuse(alone, self.score(alone.pooled, alone.modality_pooled, shown), lexical)[0]
            columns = torch.tensor(decided, device=logits.device)[self.candidate_attribute]
            logits = torch.where(columns & encoded.present.all(1, keepdim=True), of_text, logits)
        return logits, sources, features

    def _fuse(self, encoded: TaggerEncoderOutput, encoder_logits: torch.Tensor,
              lexical: tuple[torch.Tensor | None, ...]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        sources = [encoder_logits.float()]
        named = encoded.present.new_zeros(encoder_logits.shape[0], len(self.config.attributes))
        if self.lexical_head is not None and lexical[0] is None:
            sources.append(torch.zeros_like(sources[0]))
        elif self.lexical_head is not None:
            # Words of a text that modality dropout has hidden must not speak either.
            logits, named = self.lexical_head(*lexical, encoded.present[:, TEXT], self.candidate_attribute)
            sources.append(logits)
        if self.kernel_head is not None:
            sources.append(self.kernel_head(encoded.features.text, encoded.features.image, encoded.present))
        sources = torch.stack(sources, dim=1)
        features = self.logit_fusion.features(named, encoded.present[:, IMAGE])
        return self.logit_fusion(sources, features, self.candidate_attribute), sources, features

    def score(self, pooled: torch.Tensor, modality_pooled: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Encoder logits [B, C] from pooled [B, H]; with late fusion from the two modalities [B, 2, H] apart."""
        if self.config.fusion != "late":
            return self.tag_head(pooled)
        logits = self.tag_head(modality_pooled)
        # Products with neither modality (a batch's padding) fall back on equal weights instead of 0 / 0.
        absent = ~present & present.any(1, keepdim=True)
        weights = self.late_weights.weight.masked_fill(absent[:, None], float("-inf")).softmax(-1)
        return torch.einsum("bmc,bcm->bc", logits, weights[:, self.candidate_attribute])

    def tag_scores(self, tag_logits: torch.Tensor, none_logits: torch.Tensor) -> torch.Tensor:
        """Probabilities [B, T], calibrated as the config says; see `decisions.tag_scores`."""
        logits = torch.cat([tag_logits, none_logits], dim=1).detach().float().cpu().numpy()
        return torch.from_numpy(tag_scores(self.config.attributes, logits)).to(tag_logits.device)

    def predicted_tags(self, scores: torch.Tensor) -> torch.BoolTensor:
        """The tags a product gets [B, T], from its `tag_scores`; see `decisions.predicted_tags`."""
        chosen = predicted_tags(self.config.attributes, scores.float().cpu().numpy())
        return torch.from_numpy(chosen).to(scores.device)

    @torch.no_grad()
    def encode_names(self, names: Sequence[str], processor, batch_size: int = 256) -> torch.Tensor:
        """The text tower's encodings [N, E] of names such as "colour: Black"."""
        was_training = self.training
        self.eval()
        vectors = []
        for start in range(0, len(names), batch_size):
            tokens = {key: value.to(self.device) for key, value in
                      processor.tokenize(names[start:start + batch_size]).items()}
            states = self.encoder.text_tower(**tokens).last_hidden_state
            vectors.append(pool_tokens(states, tokens["attention_mask"], self.config.text_pooling))
        self.train(was_training)
        return torch.cat(vectors)

    def name_tags(self, processor) -> None:
        """Starts the tag head from the tags' names, and tells the processor what the lexical head reads (a new model,
        once)."""
        processor.set_lexical(self.config.lexical_features)
        if self.config.text_config is not None:
            names = [f"{attribute['name']}: {tag}" for attribute in self.config.attributes for tag in attribute["tags"]]
            names += [f"{attribute['name']}: none" for attribute in self.config.attributes]
            self.tag_head.set_names(self.encode_names(names, processor))

    @torch.no_grad()
    def add_tags(self, tags: dict[str, Sequence[str]], processor) -> None:
        """Adds tags by name to a trained model, in place; they are scored at once, before any retraining.

        A new tag starts from the encoding of its name, with the typical bias of its attribute. The score of no other
        tag moves, except that the tags of a `single` attribute share one softmax.

        Args:
            tags: {attribute: [new tags]}.
            processor: the model's `TaggerProcessor`.

        Raises:
            ValueError: an unknown attribute, what is no list of names, a tag that is there already, or a model that
                does not know tags by name. The model then stays as it was.
        """
        if self.config.text_config is None:
            raise ValueError("add_tags needs a text tower: this model knows tags by index only")
        attributes = {attribute["name"]: attribute for attribute in self.config.attributes}
        added = {}
        for name, new in tags.items():
            if name not in attributes:
                raise ValueError(f"unknown attribute {name!r}; this model knows: {', '.join(attributes)}")
            if isinstance(new, str):
                raise ValueError(f"the tags of {name!r} are a list of names: write [{new!r}]")
            added[name] = [clean_tag(tag) if isinstance(tag, str) else None for tag in new]
            for tag, clean in zip(new, added[name], strict=True):
                if clean is None:
                    raise ValueError(f"{tag!r} is no name of a tag of {name!r}")
                if added[name].count(clean) > 1 or clean in attributes[name]["tags"]:
                    raise ValueError(f"attribute {name!r} has the tag {clean!r} already")
        old_tags, order, names, entries = self.config.num_tags, [], [], []
        for attribute, where in zip(self.config.attributes, attribute_slices(self.config.attributes), strict=True):
            new = added.get(attribute["name"], [])
            order += list(range(where.start, where.stop)) + [-1] * len(new)
            names += [f"{attribute['name']}: {tag}" for tag in new]
            entries.append(grown(attribute, new))
        if not names:
            return
        encoded = self.encode_names(names, processor)
        order += range(old_tags, old_tags + len(self.config.attributes))
        old_attribute = self.candidate_attribute
        self.config.attributes = entries
        self.candidate_attribute = candidate_attributes(entries).to(old_attribute.device)
        order = torch.tensor(order, device=old_attribute.device)
        self.tag_head.grow(order, old_attribute, self.candidate_attribute, encoded)
        if self.lexical_head is not None:
            self.lexical_head.grow(order, old_attribute, self.candidate_attribute)
            processor.set_lexical(self.config.lexical_features)
        if self.kernel_head is not None:
            self.kernel_head.grow(order, old_attribute, self.candidate_attribute)
        if self.decoder is not None:
            self.decoder_memory.set_tags(self.config, processor.tag_tokenizer)


__all__ = ["TaggerModel"]
