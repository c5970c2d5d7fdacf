"""The towers and their fusion: tokens and photos in, one fused sequence and one pooled vector out."""

from dataclasses import dataclass, replace

import torch
from torch import nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput
from transformers.utils import ModelOutput

from .configuration_tagger import RecurrentTextConfig, TaggerConfig

TEXT, IMAGE = 0, 1

GRID_STAGE = -2  # the last one is a few cells wide


@dataclass
class TaggerEncoderOutput(ModelOutput):
    """
    Args:
        last_hidden_state: fused sequence [B, S, H], or None unless asked for.
        attention_mask: bool [B, S], True where the fused sequence may be attended to.
        pooled: one vector per product [B, H].
        features: what the towers said, before fusion.
        modality_pooled: the projected text and photo vectors [B, 2, H], proxies where a modality is absent.
        present: bool [B, 2], which of text and photo each product has.
    """

    last_hidden_state: torch.FloatTensor | None = None
    attention_mask: torch.BoolTensor | None = None
    pooled: torch.FloatTensor | None = None
    features: "TowerFeatures | None" = None
    modality_pooled: torch.FloatTensor | None = None
    present: torch.BoolTensor | None = None


@dataclass
class TowerFeatures:
    """What the towers say of a batch, before anything trainable in minutes touches it.

    Args:
        present: bool [B, 2], which of text and photo each product has.
        text, image: pooled features [B, F] of each tower, None where no product of the batch has the modality.
        text_states, text_mask, image_states, image_mask: token states [B, S, F] and which of them are real [B, S].
    """

    present: torch.BoolTensor
    text: torch.Tensor | None = None
    image: torch.Tensor | None = None
    text_states: torch.Tensor | None = None
    text_mask: torch.BoolTensor | None = None
    image_states: torch.Tensor | None = None
    image_mask: torch.BoolTensor | None = None


class RecurrentTextModel(PreTrainedModel):
    """Embedding table and bidirectional LSTM or GRU; returns hidden states [B, L, hidden_size]."""

    config_class = RecurrentTextConfig
    _supports_sdpa = True

    def __init__(self, config: RecurrentTextConfig):
        super().__init__(config)
        cell = {"lstm": nn.LSTM, "gru": nn.GRU}[config.cell]
        self.embed_tokens = nn.Embedding(config.vocab_size, config.embedding_size, padding_idx=config.pad_token_id)
        self.dropout = nn.Dropout(config.dropout)
        self.rnn = cell(config.embedding_size, config.hidden_size // 2, config.num_hidden_layers, batch_first=True,
                        bidirectional=True, dropout=config.dropout if config.num_hidden_layers > 1 else 0.0)
        self.post_init()

    def get_input_embeddings(self):
        return self.embed_tokens

    def forward(self, input_ids: torch.LongTensor, attention_mask: torch.LongTensor) -> BaseModelOutput:
        # Packing keeps the backward direction from reading padding first: a row's output is the same in any batch.
        lengths = attention_mask.sum(-1).clamp(min=1).cpu()
        embedded = self.dropout(self.embed_tokens(input_ids))
        packed = nn.utils.rnn.pack_padded_sequence(embedded, lengths, batch_first=True, enforce_sorted=False)
        states, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True,
                                                     total_length=input_ids.shape[1])
        return BaseModelOutput(last_hidden_state=states)


class ConcatFusion(nn.Module):
    """A hidden layer over both vectors side by side: the classic of the field."""

    def __init__(self, config: TaggerConfig):
        super().__init__()
        width = config.hidden_size
        self.layers = nn.Sequential(nn.Linear(2 * width, width), nn.GELU(), nn.LayerNorm(width),
                                    nn.Dropout(config.dropout))

    def forward(self, modality_pooled, present, sequence, mask):
        return self.layers(modality_pooled.flatten(1)), sequence


class AttentionFusion(nn.Module):
    """Transformer layers over a summary token and the fused sequence; the summary is the pooled vector."""

    def __init__(self, config: TaggerConfig):
        super().__init__()
        width = config.hidden_size
        layer = nn.TransformerEncoderLayer(width, config.fusion_heads, 4 * width, config.dropout, activation="gelu",
                                           batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, config.fusion_layers, nn.LayerNorm(width),
                                            enable_nested_tensor=False)
        self.summary = nn.Linear(2 * width, width)

    def forward(self, modality_pooled, present, sequence, mask):
        summary = self.summary(modality_pooled.flatten(1))
        padding = torch.cat([torch.zeros_like(mask[:, :1]), ~mask], dim=1)
        states = self.layers(torch.cat([summary[:, None], sequence], dim=1), src_key_padding_mask=padding)
        return states[:, 0], states[:, 1:]


class LateFusion(nn.Module):
    """The mean of the vectors that are there. The logits are fused in the tag head, attribute by attribute."""

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, modality_pooled, present, sequence, mask):
        weights = present.to(modality_pooled.dtype)[..., None]
        return self.dropout((modality_pooled * weights).sum(1) / weights.sum(1).clamp(min=1)), sequence


# Each takes both pooled vectors [B, 2, H] (proxies stand in for what is missing), which of the two a product has, bool
# [B, 2], and the sequence of all tokens [B, S, H] with its mask, bool [B, S], or None. It gives a pooled vector [B, H]
# and a sequence for a decoder to attend to.
FUSIONS = {"concat": ConcatFusion, "attention": AttentionFusion, "late": LateFusion}


class TaggerEncoder(nn.Module):
    """Runs the towers on the rows that have something for them, and fuses what they return."""

    main_input_name = "input_ids"

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.config = config
        width = config.hidden_size
        self.feature_widths = {"text": 0, "image": 0, "grid": 0, "histogram": 0}
        self.stage_widths: list[int] = []
        if config.text_config is not None:
            if config.text_config.model_type == RecurrentTextConfig.model_type:
                self.text_tower = RecurrentTextModel(config.text_config)
            else:
                self.text_tower = AutoModel.from_config(config.text_config)
                for layer in text_layers(self.text_tower) or () if config.text_heads else ():
                    narrow_attention(layer, list(range(config.text_heads)))
                # The pooler of BERT and its kin is never used here: drop it rather than ship and synchronise it.
                if getattr(self.text_tower, "pooler", None) is not None:
                    self.text_tower.pooler = None
            text_width = self.feature_widths["text"] = config.text_config.hidden_size
            self.text_projection = _projection(text_width, width)
            self.text_token_projection = nn.Linear(text_width, width)
        if config.vision_config is not None:
            self.vision_tower = AutoModel.from_config(config.vision_config)
            timm_model = self.vision_tower.timm_model
            pooled_width = getattr(timm_model, "head_hidden_size", timm_model.num_features)
            self.stage_widths = [3 * timm_model.feature_info[stage]["num_chs"] for stage in config.vision_stages]
            grid_width = 0
            if config.vision_grid:
                rows, columns = config.vision_grid
                grid_width = rows * columns * self.stage_widths[GRID_STAGE] // 3
            stage_width = sum(self.stage_widths) + grid_width
            self.histogram = ColourHistogram(config) if config.colour_histogram else None
            histogram_width = self.histogram.width if self.histogram else 0
            image_width = pooled_width + stage_width + histogram_width
            self.feature_widths |= {"image": image_width, "grid": grid_width, "histogram": histogram_width}
            self.image_projection = _projection(image_width, width)
            self.image_token_projection = nn.Linear(timm_model.num_features, width)
        self.proxies = nn.Embedding(2, width)
        self.fusion = FUSIONS[config.fusion](config)

    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.LongTensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        pixel_mask: torch.BoolTensor | None = None,
        features: TowerFeatures | None = None,
        output_sequence: bool = False,
        **kwargs,
    ) -> TaggerEncoderOutput:
        """Arguments as of `TaggerModel.forward`; attention fusion computes the fused sequence in any case."""
        output_sequence = output_sequence or self.config.fusion == "attention"
        if features is None:
            features = self.run_towers(input_ids, attention_mask, pixel_values, pixel_mask, output_sequence)
        elif output_sequence and features.text_states is None and features.image_states is None:
            raise ValueError("the fused sequence needs the towers' token states, which stored features do not keep")
        else:
            features = self._drop_modalities(features)
        present = features.present
        vectors = []
        for modality, name in ((TEXT, "text"), (IMAGE, "image")):
            vector, proxy = getattr(features, name), self.proxies.weight[modality].expand(present.shape[0], -1)
            if vector is not None:
                projected = getattr(self, f"{name}_projection")(vector)
                proxy = torch.where(present[:, modality, None], projected, proxy.to(projected.dtype))
            vectors.append(proxy)
        modality_pooled = torch.stack([vector.to(vectors[0].dtype) for vector in vectors], dim=1)
        sequence, mask = self._fused_sequence(features) if output_sequence else (None, None)
        pooled, sequence = self.fusion(modality_pooled, present, sequence, mask)
        return TaggerEncoderOutput(last_hidden_state=sequence, attention_mask=mask, pooled=pooled, features=features,
                                   modality_pooled=modality_pooled, present=present)

    def run_towers(self, input_ids=None, attention_mask=None, pixel_values=None, pixel_mask=None,
                   output_states: bool = False) -> TowerFeatures:
        """Runs each tower on the rows that have something for it (arguments as in `forward`)."""
        reference = input_ids if input_ids is not None else pixel_mask
        if reference is None or (pixel_values is None) != (pixel_mask is None):
            raise ValueError("a product needs text or a photo: pass input_ids, pixel_values with pixel_mask, or both")
        batch, device = reference.shape[0], reference.device
        if input_ids is not None and attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        has = [_rows_with(attention_mask, self.config.text_config, batch, device),
               _rows_with(pixel_mask, self.config.vision_config, batch, device)]
        features = TowerFeatures(present=torch.stack(has, dim=1))
        features = self._drop_modalities(features)
        has_text, has_image = features.present.unbind(1)
        if bool(has_text.any()):
            rows = has_text.nonzero().squeeze(1)
            features.text, states = self.read_texts(input_ids[rows], attention_mask[rows], rows, batch)
            if output_states:
                features.text_states = _scatter_rows(states, rows, batch)
                features.text_mask = attention_mask.bool() & has_text[:, None]
        if bool(has_image.any()):
            mask = pixel_mask & has_image[:, None]  # without those that a product has lost to modality dropout
            pixels = pixel_values[mask[pixel_mask]].contiguous(memory_format=torch.channels_last)
            features.image, states = self.read_photos(pixels, mask.nonzero()[:, 0], batch, output_states)
            if output_states:
                spread = states.new_zeros(*mask.shape, *states.shape[1:])
                spread[mask] = states
                features.image_states = spread.flatten(1, 2)
                features.image_mask = mask.repeat_interleave(states.shape[1], dim=1)
        return features

    def read_texts(self, input_ids, attention_mask, rows, batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Texts int64 [R, L] of the products `rows` [R] -> pooled vectors of all products [batch, F], zero for those
        without text, and the token states [R, L, H]."""
        states = self.text_tower(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return _scatter_rows(pool_tokens(states, attention_mask, self.config.text_pooling), rows, batch), states

    def read_photos(self, pixels, rows, batch, output_states: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Photos [N, 3, H, W] of the products `rows` [N] -> the mean vector of each product's photos [batch, F], zero
        for those without, and if wanted the tokens of each photo [N, P, C]."""
        vectors, states = self._run_vision(pixels, output_states)
        count = vectors.new_zeros(batch).index_add(0, rows, vectors.new_ones(rows.shape[0]))
        total = vectors.new_zeros(batch, vectors.shape[1]).index_add(0, rows, vectors)
        return total / count.clamp(min=1)[:, None], states

    def _drop_modalities(self, features: TowerFeatures) -> TowerFeatures:
        """In training, takes at most one modality away, and only from products that have both."""
        rates = self.config.modality_dropout
        if not self.training or not rates:
            return features
        draw = torch.rand(len(features.present), device=features.present.device)
        text_rate, image_rate = rates.get("text", 0.0), rates.get("image", 0.0)
        lost = torch.stack([draw < text_rate, (draw >= text_rate) & (draw < text_rate + image_rate)], dim=1)
        present = features.present & ~(lost & features.present.all(1, keepdim=True))
        return replace(features, present=present)

    def _fused_sequence(self, features: TowerFeatures) -> tuple[torch.Tensor, torch.Tensor]:
        """Text tokens then photo tokens [B, S, H]; a slot before each holds the proxy of an absent modality."""
        parts, masks = [], []
        for modality, name in ((TEXT, "text"), (IMAGE, "image")):
            states, mask = getattr(features, f"{name}_states"), getattr(features, f"{name}_mask")
            parts.append(self.proxies.weight[modality].expand(features.present.shape[0], 1, -1))
            masks.append(~features.present[:, modality, None])
            if states is not None:
                parts.append(getattr(self, f"{name}_token_projection")(states))
                masks.append(mask & features.present[:, modality, None])
        return torch.cat([part.to(parts[-1].dtype) for part in parts], dim=1), torch.cat(masks, dim=1)

    def _run_vision(self, pixels, output_sequence):
        """Photos [N, 3, H, W] -> pooled features [N, F] and, if wanted, the last feature map as tokens [N, P, C]."""
        stages = list(self.config.vision_stages)
        outputs = self.vision_tower(pixels, output_hidden_states=stages or None, do_pooling=True)
        vectors = [outputs.pooler_output]
        for stage in outputs.hidden_states or ():
            # Channels last, var and amax take several times as long as these, which say the same.
            mean = stage.float().mean((2, 3), keepdim=True)
            deviation = (stage.float() - mean).square().mean((2, 3)).add(1e-6).sqrt()
            highest = nn.functional.max_pool2d(stage, tuple(stage.shape[2:])).flatten(1)
            vectors += [mean.flatten(1).to(stage.dtype), deviation.to(stage.dtype), highest]
        if self.config.vision_grid:
            stage = outputs.hidden_states[GRID_STAGE]
            vectors.append(nn.functional.adaptive_avg_pool2d(stage, tuple(self.config.vision_grid)).flatten(1))
        if self.histogram is not None:
            vectors.append(self.histogram(pixels).to(vectors[0].dtype))
        states = None
        if output_sequence:
            states = outputs.last_hidden_state
            if states.dim() == 4:
                # Swin and MambaOut keep channels last; convolutional networks keep them second.
                if str(getattr(self.vision_tower.timm_model, "output_fmt", "NCHW")) != "NHWC":
                    states = states.permute(0, 2, 3, 1)
                states = states.flatten(1, 2)
        return torch.cat(vectors, dim=1), states


def text_layers(tower: nn.Module) -> list[nn.Module] | None:
    """The layers of a text tower that is built like BERT's (as RoBERTa's and XLM-R's are), None for any other."""
    layers = getattr(getattr(tower, "encoder", None), "layer", None)
    if layers is None or not all(hasattr(layer, "intermediate") for layer in layers):
        return None
    return list(layers)


@torch.no_grad()
def narrow_attention(layer: nn.Module, kept: list[int]) -> None:
    """Cuts all attention heads but these out of a layer of `text_layers`, in place."""
    attention, output = layer.attention.self, layer.attention.output.dense
    size = attention.attention_head_size
    rows = torch.cat([torch.arange(head * size, (head + 1) * size) for head in kept])
    for part in (attention.query, attention.key, attention.value):
        part.weight, part.bias = nn.Parameter(part.weight[rows].clone()), nn.Parameter(part.bias[rows].clone())
        part.out_features = len(rows)
    output.weight = nn.Parameter(output.weight[:, rows].clone())
    output.in_features = len(rows)
    attention.num_attention_heads, attention.all_head_size = len(kept), len(rows)


def pool_tokens(states: torch.Tensor, attention_mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector [B, H] from token states [B, L, H]: the first token, or the mean over the attended ones."""
    if pooling == "cls":
        return states[:, 0]
    weights = attention_mask.to(states.dtype)[..., None]
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1)


def _projection(in_features: int, out_features: int) -> nn.Module:
    return nn.Sequential(Standardise(in_features), nn.LayerNorm(in_features), nn.Linear(in_features, out_features))


def _rows_with(mask, tower_config, batch, device):
    if mask is None or tower_config is None:
        return torch.zeros(batch, dtype=torch.bool, device=device)
    return mask.bool().any(1)


def _scatter_rows(values: torch.Tensor, rows: torch.Tensor, batch: int) -> torch.Tensor:
    """Puts values [R, ...] at the given rows, which are in order, of a zero tensor [batch, ...]."""
    if values.shape[0] == batch:
        return values
    return values.new_zeros(batch, *values.shape[1:]).index_copy(0, rows, values)


class Standardise(nn.Module):
    """Brings every feature to mean 0 and variance 1 over the catalogue, outliers cut at 6 standard deviations.

    Features of different stages and towers differ by orders of magnitude; whichever is large would drown the rest.
    Until `fit`, features pass as they are.
    """

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def reset(self) -> None:
        init.zeros_(self.mean)
        init.ones_(self.std)

    @torch.no_grad()
    def fit(self, vectors: torch.Tensor) -> None:
        """vectors [N, F] of training products."""
        self.mean.copy_(vectors.mean(0))
        self.std.copy_(vectors.std(0).clamp(min=1e-4))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        return ((vectors - self.mean) / self.std).clamp(-6, 6)


class ColourHistogram(nn.Module):
    """Joint histogram of red, green and blue in 6 x 6 x 6 soft bins, of the whole photo and of its centre, square roots
    of shares. White, the studio background, is left out and reported as a share of its own. Pixels are averaged to
    56 x 56 first."""

    BINS, SIDE, WHITE = 6, 56, 0.94
    width = 2 * (BINS**3 + 1)

    def __init__(self, config: TaggerConfig):
        super().__init__()
        self.register_buffer("mean", torch.tensor(config.image_mean)[:, None, None])
        self.register_buffer("std", torch.tensor(config.image_std)[:, None, None])
        self.values = config.image_mean, config.image_std

    def reset(self) -> None:
        for buffer, values in zip((self.mean, self.std), self.values, strict=True):
            init.copy_(buffer, torch.tensor(values)[:, None, None])

    @torch.no_grad()
    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalised photos [N, 3, H, W] -> [N, 2 (BINS^3 + 1)]."""
        with torch.autocast(pixels.device.type, enabled=False):
            small = nn.functional.adaptive_avg_pool2d(pixels.float(), self.SIDE)
            colour = (small * self.std + self.mean).clamp(0, 1).flatten(2)
            centre = torch.zeros(self.SIDE, self.SIDE, device=pixels.device)
            margin = self.SIDE // 4
            centre[margin:-margin, margin:-margin] = 1.0
            background = (colour.amin(1) > self.WHITE).float()
            places = torch.arange(self.BINS, device=pixels.device)[:, None]
            red, green, blue = ((1 - (channel[:, None] * (self.BINS - 1) - places).abs()).clamp(min=0)
                                for channel in colour.unbind(1))
            pairs = (red[:, :, None] * green[:, None]).flatten(1, 2)
            parts = []
            for region in (torch.ones_like(centre), centre):
                inside = region.flatten().expand_as(background)
                wanted = inside * (1 - background)
                counts = (pairs * wanted[:, None]) @ blue.transpose(1, 2)
                shares = counts.flatten(1) / wanted.sum(1, keepdim=True).clamp(min=1)
                parts += [shares.sqrt(), (inside * background).sum(1, keepdim=True) / inside.sum(1, keepdim=True)]
            return torch.cat(parts, dim=1)
