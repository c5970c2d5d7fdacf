"""The decoder of a tagger as two ONNX graphs, for `hf_tagger.runtime.decoder`."""

from pathlib import Path

import onnx
import torch
from torch import nn
from transformers import DynamicCache, EncoderDecoderCache

from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.model.towers import TaggerEncoderOutput, TowerFeatures
from hf_tagger.runtime import MODEL
from hf_tagger.runtime.decoder import DECODER, MEMORY, TAG_TOKENIZER

OPSET = 23  # the first in which attention is one operator
# Sizes of the example that is traced; all differ, so that no two are taken for one.
_ROWS, _TOKENS, _PATCHES, _MEMORY, _WRITTEN = 3, 5, 8, 11, 4
_VARIES = torch.export.Dim.DYNAMIC


class MemoryGraph(nn.Module):
    """`DecoderMemory`, and the keys and values that each layer of the decoder makes of it."""

    def __init__(self, model: TaggerModel):
        super().__init__()
        self.model = model
        tags = torch.arange(model.config.num_tags)
        self.register_buffer("names", model.decoder_memory.name_vectors(tags, model.decoder.stack.embed_tokens))

    def forward(self, pooled, modality_pooled, present, tag_scores, text_states=None, text_mask=None,
                image_states=None, image_mask=None):
        """
        Args:
            pooled, modality_pooled, present: of `TaggerEncoderOutput`; tag_scores: [B, T].
            text_states, text_mask, image_states, image_mask: of `TowerFeatures`, those of the towers there are.

        Returns the memory's mask [B, S], and for each layer keys and values [B, heads, S, D / heads].
        """
        model = self.model
        features = TowerFeatures(present, text_states=text_states, text_mask=text_mask, image_states=image_states,
                                 image_mask=image_mask)
        sequence, mask = model.encoder._fused_sequence(features)
        encoded = TaggerEncoderOutput(last_hidden_state=sequence, attention_mask=mask, pooled=pooled,
                                      modality_pooled=modality_pooled)
        memory = model.decoder_memory(encoded, tag_scores, model.decoder.stack.embed_tokens, self.names)
        parts = []
        for layer in model.decoder.stack.layers:
            attention = layer.encoder_attn
            for projection in (attention.k_proj, attention.v_proj):
                heads = projection(memory.last_hidden_state).unflatten(-1, (attention.num_heads, attention.head_dim))
                parts.append(heads.transpose(1, 2))
        return memory.attention_mask, *parts


class StepGraph(nn.Module):
    """One token more of each list: `TagDecoder` with a cache that comes from outside and is handed back."""

    def __init__(self, model: TaggerModel):
        super().__init__()
        self.decoder = model.decoder

    def forward(self, token, memory_mask, memory, past):
        """
        Args:
            token: int64 [B]; memory_mask: bool [B, S].
            memory, past: keys and values of each layer in turn, [B, heads, S, D / heads] of the memory and
                [B, heads, P, D / heads] of the tokens before.

        Returns logits [B, V] of the next token, and `past` with this one.
        """
        cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        for layer in range(len(past) // 2):
            cache.self_attention_cache.update(past[2 * layer], past[2 * layer + 1], layer)
            cache.cross_attention_cache.update(memory[2 * layer], memory[2 * layer + 1], layer)
            cache.is_updated[layer] = True
        stack = self.decoder.stack
        # With the cache filled, the layers ask no more of the memory itself than that there is one.
        output = stack(input_ids=token[:, None], encoder_hidden_states=memory[0], encoder_attention_mask=memory_mask,
                       cache=cache, use_cache=True)
        logits = nn.functional.linear(output.last_hidden_state[:, -1], stack.embed_tokens.weight)
        return logits, *(part for layer in cache.self_attention_cache.layers for part in (layer.keys, layer.values))


def export_decoder(model: TaggerModel, processor: TaggerProcessor, folder: Path) -> None:
    """Writes both graphs and the tag tokenizer to `folder`. The model is in float32, in evaluation mode."""
    config = model.config
    layers, heads = config.decoder["layers"], config.decoder["heads"]
    names = [f"{part}_{layer}" for layer in range(layers) for part in ("key", "value")]
    inputs = {"pooled": torch.randn(_ROWS, config.hidden_size),
              "modality_pooled": torch.randn(_ROWS, 2, config.hidden_size),
              "present": torch.ones(_ROWS, 2, dtype=torch.bool), "tag_scores": torch.rand(_ROWS, config.num_tags)}
    for tower, wanted, count in (("text", config.text_config, _TOKENS), ("image", config.vision_config, _PATCHES)):
        if wanted is not None:
            width = getattr(model.encoder, f"{tower}_token_projection").in_features
            inputs |= {f"{tower}_states": torch.randn(_ROWS, count, width),
                       f"{tower}_mask": torch.ones(_ROWS, count, dtype=torch.bool)}
    dynamic = {name: {0: _VARIES, 1: _VARIES} if name.endswith(("_states", "_mask")) else {0: _VARIES}
               for name in inputs}
    memory_names = [f"memory_{name}" for name in names]
    export_graph(MemoryGraph(model), inputs, dynamic, list(inputs), ["memory_mask", *memory_names], folder / MEMORY)

    def parts(length: int) -> list[torch.Tensor]:
        return [torch.randn(_ROWS, heads, length, config.decoder["d_model"] // heads) for _ in names]

    inputs = {"token": torch.arange(_ROWS) + 5, "memory_mask": torch.ones(_ROWS, _MEMORY, dtype=torch.bool),
              "memory": parts(_MEMORY), "past": parts(_WRITTEN)}
    dynamic = {"token": {0: _VARIES}, "memory_mask": {0: _VARIES, 1: _VARIES},
               **{name: [{0: _VARIES, 2: _VARIES}] * len(names) for name in ("memory", "past")}}
    given = ["token", "memory_mask", *memory_names, *(f"past_{name}" for name in names)]
    export_graph(StepGraph(model), inputs, dynamic, given, ["logits", *names], folder / DECODER)
    processor.tag_tokenizer.backend_tokenizer.save(str(folder / TAG_TOKENIZER))


@torch.no_grad()
def export_graph(graph: nn.Module, inputs: dict, dynamic: dict, given: list[str], returned: list[str],
                 path: Path) -> None:
    program = torch.onnx.export(graph.eval(), kwargs=inputs, dynamic_shapes=dynamic, dynamo=True, opset_version=OPSET,
                                input_names=given, output_names=returned, verbose=False)
    program.save(path, external_data=True)


def label_vectors(model: TaggerModel, processor: TaggerProcessor) -> dict:
    """Which token embeddings tell near-duplicates, as `FreeFormTagger` takes them: {"tokens": whose tokens, "graph",
    "name": the graph that holds them and how it calls them, "unk_id"}."""
    table = model.get_input_embeddings() if processor.reads_text else None
    if table is None:
        return {"tokens": "tags", "graph": DECODER, "name": "decoder.stack.embed_tokens.weight",
                "unk_id": processor.tag_tokenizer.unk_token_id}
    name = next(name for name, weight in model.named_parameters() if weight is table.weight)
    return {"tokens": "text", "graph": MODEL, "name": f"model.{name}", "unk_id": processor.tokenizer.unk_token_id}


def place_in_file(path: Path, name: str) -> dict:
    """Where beside the graph `path` the matrix `name` lies, in float32 or as int8 quantization left it: {"file",
    "offset" in bytes, "shape", "dtype", "scale": of all rows, of each, or {"offset"} of the latter in the file}."""
    tensors = {tensor.name: tensor for tensor in onnx.load(path, load_external_data=False).graph.initializer}
    quantized = name not in tensors
    tensor = tensors[f"{name}_quantized" if quantized else name]
    data = {entry.key: entry.value for entry in tensor.external_data}
    scale: float | list | dict = 1.0
    if quantized:
        scales = tensors[f"{name}_scales"]
        places = {entry.key: entry.value for entry in scales.external_data}
        scale = {"offset": int(places.get("offset", 0))} if places else onnx.numpy_helper.to_array(scales).tolist()
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
    return {"file": data["location"], "offset": int(data.get("offset", 0)), "shape": list(tensor.dims), "dtype": dtype,
            "scale": scale}
