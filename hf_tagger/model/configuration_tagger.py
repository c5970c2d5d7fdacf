"""Configuration of `TaggerModel`: which towers read the product, how they are fused, and the tags it can give."""

import warnings
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, BartConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from .saving import BOS, EOS, FORMAT, PAD, SEPARATOR, TRAIN_AGAIN, check_format

FUSION_NAMES = ("concat", "attention", "late")
DECODER_DEFAULTS = {
    "vocab_size": None, "d_model": 256, "layers": 3, "heads": 4, "ffn_dim": 1024, "dropout": 0.1, "max_length": 64,
    "languages": [], "attributes": [], "aliases": {}, "tag_languages": {}, "any_order": False,
    "calibration": None, "closed_calibration": None, "min_score": 0.0, "merge_similarity": 0.88,
}


class RecurrentTextConfig(PreTrainedConfig):
    """The classic text tower: an embedding table and a bidirectional LSTM or GRU, trained from scratch."""

    model_type = "tagger_recurrent"

    cell: Literal["lstm", "gru"] = "lstm"
    vocab_size: int = 8000
    embedding_size: int = 128
    hidden_size: int = 256
    num_hidden_layers: int = 1
    dropout: float = 0.1
    pad_token_id: int | None = 0
    initializer_range: float = 0.05

    def __post_init__(self, **kwargs):
        super().__post_init__(**kwargs)
        if self.hidden_size % 2:
            raise ValueError(f"hidden_size is shared by two directions and must be even, got {self.hidden_size}")


AutoConfig.register(RecurrentTextConfig.model_type, RecurrentTextConfig, exist_ok=True)


@strict
class TaggerConfig(PreTrainedConfig):
    """
    Args:
        attributes: one entry per attribute, in the order of the logits:
            `{"name": "colour", "kind": "single" | "multi", "tags": ["Black", ...]}` and optionally `"counts"` (training
            rows per tag), `"none_count"` (training rows to which no tag applies), `"parents"` ({tag: parent tag}), and
            what is fitted on validation products: `"thresholds"` (one per tag), `"temperature"`, `"calibration"`,
            `"label_frequency"`, `"lists"` (see `decisions.py`). A `single` attribute has at most one tag per product.
        text_config: any `AutoModel` encoder's configuration, `RecurrentTextConfig`, or None for a photo-only model.
        vision_config: a `timm_wrapper` configuration (any timm backbone), or None for a text-only model.
        text_heads: attention heads that pruning has left in each layer of the text tower; 0: all that `text_config`
            says.
        fusion: how the two pooled vectors become one. `concat` (an MLP over both), `attention` (transformer layers over
            the fused sequence), `late` (each modality gives logits of its own, averaged with weights learned per
            attribute).
        hidden_size: width of the fused sequence and of the pooled vector.
        fusion_layers, fusion_heads: depth and heads of `attention` fusion.
        text_pooling: `mean` over the real tokens, or `cls` (the first token).
        vision_stages: indices of intermediate feature maps (timm `forward_intermediates`) whose channel means, standard
            deviations and maxima join the photo's pooled vector. Early stages still know colour, which a classifier's
            last stage has thrown away.
        vision_grid: (rows, columns) of a coarse grid to which the last but one of the stages above is averaged and
            joins the vector too: where on the photo something is (a collar, a heel). Empty: none.
        colour_histogram: whether a coarse colour histogram of each photo joins its pooled vector too.
        image_mean, image_std: what photos are normalised with, for the histogram to undo.
        lexical_buckets: size of the lexical head's table of hashed words and letter n-grams; 0: none.
        tag_codes: attributes whose tags are too many for weights of their own in lexical head and kernel head, and the
            width of the codes that stand for them there: {"category": 512}; None: none.
        lexical_char_ngrams: lengths of its letter n-grams; lexical_word_ngrams: its longest runs of whole words.
        name_match: whether tags whose names stand in the text gain by it (weights shared within an attribute); with
            neither, there is no lexical head.
        kernel_landmarks: training products that the kernel head compares with; 0: no kernel head. kernel_dim,
            kernel_width: width of their keys and of the kernel; kernel_weights: the weights of its blocks of features
            (those of `kernel_head.feature_blocks`; others are left out).
        personalization: how tags are re-ranked for a shopper, see `personalization`; None: not fitted.
        speech: checkpoint of the speech recogniser that hears spoken descriptions, unless the pipeline is told another.
        modality_dropout: {"text": p, "image": p}: probability, in training, that a product which has both loses one.
        decoder: what writes free-form tags, None for a model that does not: `vocab_size` of the tag tokenizer, controls
            included; `d_model`, `layers`, `heads`, `ffn_dim`, `dropout` of the decoder; `max_length` in tokens of what
            it writes, prompt included; `languages` and `attributes` that it can be asked for, in the order of their
            control tokens; `aliases` ({spelling: tag}); `tag_languages`, {closed tag: language} of those that only
            products of one language had in training; `any_order`, whether it learned tags in a new order every time, so
            that which one comes next says nothing of it; `calibration` ([slope, intercept] from a tag's mean
            log-probability to the log-odds that it is right; None: not calibrated), `closed_calibration` (the same of
            a closed tag: [slope, slope of the log-odds that the heads give it, intercept]; None: as the others),
            `min_score` of a tag that is listed, and `merge_similarity`, the cosine from which two tags are
            near-duplicates.
        format_version: of the saved model, see `saving.py`.
    """

    model_type = "product-tagger"
    sub_configs_defaults: ClassVar = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert", optional=True),
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="timm_wrapper", optional=True),
    }

    text_config: dict | PreTrainedConfig | None = None
    vision_config: dict | PreTrainedConfig | None = None
    attributes: list[dict[str, Any]] | None = None
    text_heads: int = 0
    fusion: str = "concat"
    hidden_size: int = 512
    fusion_layers: int = 1
    fusion_heads: int = 8
    text_pooling: Literal["mean", "cls"] = "mean"
    vision_stages: list[int] | tuple[int, ...] = ()
    vision_grid: list[int] | tuple[int, ...] = ()
    colour_histogram: bool = False
    image_mean: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    image_std: list[float] | tuple[float, ...] = (0.5, 0.5, 0.5)
    lexical_buckets: int = 0
    tag_codes: dict[str, int] | None = None
    lexical_char_ngrams: list[int] | tuple[int, ...] = (3, 4, 5)
    lexical_word_ngrams: int = 1
    name_match: bool = False
    kernel_landmarks: int = 0
    kernel_dim: int = 128
    kernel_width: float = 0.8
    kernel_weights: dict[str, float] | None = None
    personalization: dict[str, Any] | None = None
    speech: str | None = None
    dropout: float = 0.1
    modality_dropout: dict[str, float] | None = None
    decoder: dict[str, Any] | None = None
    initializer_range: float = 0.02
    format_version: int = FORMAT

    @classmethod
    def from_dict(cls, config_dict, **kwargs):
        """As every configuration's. Raises ValueError for one saved in another format."""
        place = kwargs.get("name_or_path") or config_dict.get("_name_or_path") or "this model"
        check_format(config_dict.get("format_version"), place, TRAIN_AGAIN)
        return super().from_dict(config_dict, **kwargs)

    def __post_init__(self, **kwargs):
        # In a process that has hf_tagger installed, the task is registered in code; the copy of the task's description
        # that a saved folder carries for those who have not would be refused as a second registration.
        if not type(self).__module__.startswith("transformers_modules"):
            kwargs.pop("custom_pipelines", None)
        if kwargs.pop("critic", False):  # of older folders
            warnings.warn("this model left out tags that a critic of tag sets took away; there is none any more, so "
                          "that a few more tags are listed", stacklevel=2)
        super().__post_init__(**kwargs)
        # Copies: what training writes into its entries is this model's alone.
        self.attributes = [dict(entry) for entry in self.attributes or []]
        self.modality_dropout, self.kernel_weights = self.modality_dropout or {}, self.kernel_weights or {}
        _check_attributes(self.attributes)
        if self.fusion not in FUSION_NAMES:
            raise ValueError(f"fusion must be one of {', '.join(FUSION_NAMES)}, got {self.fusion!r}")
        if self.fusion == "attention" and self.hidden_size % self.fusion_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of fusion_heads {self.fusion_heads}")
        if self.vision_grid and (len(self.vision_grid) != 2 or len(self.vision_stages) < 2):
            raise ValueError("vision_grid takes (rows, columns), and needs at least two vision_stages")
        if self.lexical_features is not None and self.text_config is None:
            raise ValueError("lexical_buckets and name_match read the text: they need a text_config")
        if unknown := set(self.tag_codes or {}) - {entry["name"] for entry in self.attributes}:
            raise ValueError(f"tag_codes: there is no attribute {sorted(unknown)[0]!r}")
        for modality, rate in self.modality_dropout.items():
            if modality not in ("text", "image") or not 0 <= rate < 1:
                raise ValueError(f"modality_dropout takes text and image with rates in [0, 1), got {modality}: {rate}")
        if self.decoder is not None:
            self.set_decoder(self.decoder)

    def set_decoder(self, decoder: dict[str, Any]) -> None:
        """Completes and checks what describes the decoder, and makes this the configuration of a model that has one."""
        decoder = {key: value for key, value in decoder.items() if key != "closed_weight"}  # of older folders
        unknown = set(decoder) - set(DECODER_DEFAULTS)
        if unknown:
            raise ValueError(f"decoder has no key {sorted(unknown)[0]!r}; known: {', '.join(DECODER_DEFAULTS)}")
        self.decoder = {**DECODER_DEFAULTS, **decoder}
        controls = len(self.decoder["languages"]) + len(self.decoder["attributes"])
        if not self.decoder["vocab_size"] or self.decoder["vocab_size"] <= SEPARATOR + controls:
            raise ValueError(f"decoder.vocab_size {self.decoder['vocab_size']} leaves no token for a tag")
        if self.decoder["d_model"] % self.decoder["heads"]:
            raise ValueError(f"decoder.d_model {self.decoder['d_model']} is not a multiple of heads")
        self.is_encoder_decoder = True

    @property
    def decoder_config(self) -> BartConfig:
        """The decoder as transformers' generation knows it."""
        decoder = self.decoder
        return BartConfig(
            vocab_size=decoder["vocab_size"], d_model=decoder["d_model"], dropout=decoder["dropout"],
            decoder_layers=decoder["layers"], decoder_attention_heads=decoder["heads"],
            decoder_ffn_dim=decoder["ffn_dim"], max_position_embeddings=decoder["max_length"],
            # The cache looks at these, though there is no encoder of this kind.
            encoder_layers=decoder["layers"], encoder_attention_heads=decoder["heads"],
            # BART's 0.02 is for a width of 1024: in a narrow decoder it drowns all but the token itself, and training
            # stays for long at the mere frequencies of tokens.
            init_std=decoder["d_model"] ** -0.5,
            pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, decoder_start_token_id=BOS, forced_eos_token_id=None,
            scale_embedding=False, is_encoder_decoder=True, tie_word_embeddings=False,
        )  # fmt: skip

    @property
    def lexical_features(self) -> dict[str, Any] | None:
        """Arguments of the `LexicalFeatures` that the lexical head reads; None where there is none."""
        if not (self.lexical_buckets or self.name_match):
            return None
        names = [{key: entry[key] for key in ("name", "kind", "tags", "aliases") if key in entry}
                 for entry in self.attributes]
        return {"buckets": self.lexical_buckets, "char_ngrams": list(self.lexical_char_ngrams),
                "word_ngrams": self.lexical_word_ngrams, "attributes": names if self.name_match else []}

    @property
    def sources(self) -> list[str]:
        """What scores a closed tag, in the order in which `LogitFusion` weighs it."""
        has = {"tag_head": True, "lexical_head": self.lexical_features is not None,
               "kernel_head": bool(self.kernel_landmarks)}
        return [name for name in has if has[name]]

    @property
    def num_tags(self) -> int:
        """Closed tags over all attributes: the width T of `tag_logits`."""
        return sum(len(attribute["tags"]) for attribute in self.attributes)

    def get_text_config(self, decoder=None, encoder=None):
        # The text tower's vocabulary is none of generation's business: never let it be mistaken for ours.
        return self if self.decoder is None else self.decoder_config


def _check_attributes(attributes: list[dict]) -> None:
    names = [attribute.get("name") for attribute in attributes]
    for attribute in attributes:
        name, tags = attribute.get("name"), attribute.get("tags")
        if not name or names.count(name) > 1:
            raise ValueError(f"every attribute needs a name of its own, got {names}")
        if attribute.get("kind") not in ("single", "multi"):
            raise ValueError(f"attribute {name!r}: kind must be 'single' or 'multi', got {attribute.get('kind')!r}")
        if not tags or len(set(tags)) != len(tags):
            raise ValueError(f"attribute {name!r} needs at least one tag, and each tag once")
        calibration = attribute.get("calibration") or {}
        per_tag = {"thresholds": attribute.get("thresholds"), "counts": attribute.get("counts"),
                   "slopes": calibration.get("slopes"), "intercepts": calibration.get("intercepts")}
        for key, values in per_tag.items():
            if values is not None and len(values) != len(tags):
                raise ValueError(f"attribute {name!r}: {len(values)} {key} for {len(tags)} tags")
        lists = attribute.get("lists") or {}
        if not all(0 <= column < len(tags) for columns in lists.get("common", ()) for column in columns):
            raise ValueError(f"attribute {name!r}: lists.common holds columns of tags, from 0 to {len(tags) - 1}")
        for key, most in (("temperature", float("inf")), ("label_frequency", 1.0)):
            if not 0 < (1.0 if attribute.get(key) is None else attribute[key]) <= most:
                raise ValueError(f"attribute {name!r}: {key} must be above 0 and at most {most}, got {attribute[key]}")


__all__ = ["RecurrentTextConfig", "TaggerConfig"]
