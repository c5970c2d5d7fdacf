"""Vocabulary pruning: the text tower keeps the embedding rows of the pieces that a catalogue's languages use.

A multilingual encoder is mostly embedding table. A text all of whose pieces are kept is cut into the same pieces as
before, and gets the same logits; any other text is spelled in smaller pieces (Abdaoui et al. 2020, "Load What You
Need", arXiv 2010.05609).
"""

import json
import unicodedata
from collections.abc import Iterable
from itertools import islice

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedTokenizerFast

from hf_tagger import UserError
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.processing_tagger import TaggerProcessor

_TEXTS_AT_ONCE = 1024


class PruningError(UserError, ValueError):
    """A tokenizer whose pieces cannot be left out one by one."""


def count_pieces(texts: Iterable[str], processor: TaggerProcessor) -> np.ndarray:
    """How often each piece occurs, int64 [V], over a stream of texts, cut as the model reads them."""
    counts = np.zeros(len(processor.tokenizer), np.int64)
    texts = iter(texts)
    while chunk := list(islice(texts, _TEXTS_AT_ONCE)):
        for ids in processor.tokenizer([processor.text_prefix + text for text in chunk], truncation=True,
                                       max_length=processor.max_length)["input_ids"]:
            np.add.at(counts, ids, 1)
    return counts


def pieces_to_keep(counts: np.ndarray, processor: TaggerProcessor, min_count: int = 1,
                   all_scripts: bool = True) -> np.ndarray:
    """Ids in ascending order: pieces counted `min_count` times, special and byte tokens, and single characters, out of
    which any new word can be spelled.

    Args:
        all_scripts: also keep the letters of scripts that no counted piece is written in; without them, a word in
            such a script reads as unknown.
    """
    tokenizer = processor.tokenizer
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(counts))))
    keep = counts >= min_count
    scripts = {script_of(letter) for index in np.flatnonzero(keep) for letter in tokens[index] or ""}
    keep[list(tokenizer.all_special_ids)] = True
    for index, token in enumerate(tokens):
        letters = (token or "").removeprefix("##").lstrip("▁Ġ")
        if len(letters) <= 1:
            keep[index] |= all_scripts or not letters or script_of(letters) in scripts | {None}
        elif token.startswith("<0x") and token.endswith(">"):
            keep[index] = True
    return np.flatnonzero(keep)


def script_of(character: str) -> str | None:
    """What the Unicode name of a letter or mark begins with ("LATIN", "CJK"), None of any other character."""
    if unicodedata.category(character)[0] not in "LM":
        return None
    return unicodedata.name(character, "").partition(" ")[0]


def prune_vocabulary(model: TaggerModel, processor: TaggerProcessor, keep: np.ndarray) -> None:
    """Leaves out, in place, every piece that is not in `keep`: of the embedding table, of the tables that read words
    back from pieces, and of the tokenizer.

    Raises PruningError for a tokenizer that builds pieces out of others (BPE), or a model without text.
    """
    if model.config.text_config is None:
        raise PruningError("this model reads no text: it has no vocabulary to prune")
    tower, old = model.encoder.text_tower, processor.tokenizer
    tokenizer = pruned_tokenizer(old, keep)
    rows = torch.from_numpy(keep)
    new_id = {int(index): place for place, index in enumerate(keep)}
    embeddings = tower.get_input_embeddings()
    padding = new_id.get(embeddings.padding_idx)
    table = nn.Embedding.from_pretrained(embeddings.weight.detach()[rows].clone(), padding_idx=padding,
                                         freeze=not embeddings.weight.requires_grad)
    tower.set_input_embeddings(table)
    config = model.config.text_config
    for part in {id(part): part for part in (config, tower.config)}.values():
        part.vocab_size = len(keep)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
            if getattr(part, name, None) is not None:
                setattr(part, name, new_id.get(getattr(part, name)))
    processor.tokenizer = tokenizer


def pruned_tokenizer(tokenizer: PreTrainedTokenizerFast, keep: np.ndarray) -> PreTrainedTokenizerFast:
    """The tokenizer with the pieces `keep` alone, numbered anew in their order."""
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    new_id = {int(index): place for place, index in enumerate(keep)}
    pieces = described["model"]
    if pieces["type"] == "Unigram":
        pieces["vocab"] = [pieces["vocab"][index] for index in keep if index < len(pieces["vocab"])]
        if pieces["unk_id"] is not None:
            pieces["unk_id"] = new_id[pieces["unk_id"]]
    elif pieces["type"] in ("WordPiece", "WordLevel"):
        pieces["vocab"] = {piece: new_id[index] for piece, index in pieces["vocab"].items() if index in new_id}
    else:
        raise PruningError(f"a {pieces['type']} tokenizer builds its pieces out of others, of which none can be left "
                           "out; vocabulary pruning takes Unigram, WordPiece and WordLevel")
    described["added_tokens"] = [token | {"id": new_id[token["id"]]} for token in described["added_tokens"]
                                 if token["id"] in new_id]
    _renumber(described["post_processor"], new_id)
    options = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if not isinstance(token, list)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(described)),
                                   model_max_length=tokenizer.model_max_length, padding_side=tokenizer.padding_side,
                                   truncation_side=tokenizer.truncation_side, **options)


def _renumber(post_processor: dict | None, new_id: dict[int, int]) -> None:
    if post_processor is None:
        return
    for part in post_processor.get("processors", ()):
        _renumber(part, new_id)
    for special in (post_processor.get("special_tokens") or {}).values():  # TemplateProcessing
        special["ids"] = [new_id[index] for index in special["ids"]]
    for name in ("sep", "cls"):  # BertProcessing, RobertaProcessing
        if name in post_processor:
            post_processor[name] = [post_processor[name][0], new_id[post_processor[name][1]]]
