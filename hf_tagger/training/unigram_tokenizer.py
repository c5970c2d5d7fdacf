"""Unigram (SentencePiece) tokenizers as fast transformers tokenizers: from known pieces, or trained on a catalogue."""

import io
from collections.abc import Iterable
from itertools import islice

import sentencepiece
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

SPECIAL = {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def unigram_tokenizer(
    pieces: list[tuple[str, float]], *, lowercase: bool = False, max_length: int = 512, mask_token: str | None = None
) -> PreTrainedTokenizerFast:
    """A tokenizer that puts <s> before and </s> after a text. `pieces`: (piece, log-probability) in the order of their
    ids, <pad>, <unk>, <s> and </s> among them; "▁" stands for the space before a word."""
    ids = {piece: index for index, (piece, _) in enumerate(pieces)}
    bos, eos = SPECIAL["bos_token"], SPECIAL["eos_token"]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=ids[SPECIAL["unk_token"]], byte_fallback=False))
    fold = [normalizers.NFKC(), *([normalizers.Lowercase()] if lowercase else [])]
    tokenizer.normalizer = normalizers.Sequence([*fold, normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[bos, "$A", eos],
        pair=[bos, "$A", eos, eos, "$B", eos],
        special_tokens=[(bos, ids[bos]), (eos, ids[eos])],
    )
    special = SPECIAL | {"cls_token": bos, "sep_token": eos} | ({"mask_token": mask_token} if mask_token else {})
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **special)


def train_unigram_tokenizer(
    texts: Iterable[str], vocab_size: int = 8000, max_texts: int = 1_000_000
) -> PreTrainedTokenizerFast:
    """Trains a lower-casing tokenizer of at most `vocab_size` pieces on the first `max_texts` texts; deterministic.

    Raises ValueError where there is no text, or `vocab_size` is too small for the characters that occur.
    """
    # The trainer must see texts as the tokenizer will normalise them.
    normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    lines = [line for text in islice(texts, max_texts) if (line := normalizer.normalize_str(text).strip())]
    if not lines:
        raise ValueError("a tokenizer is trained on the catalogue's texts, but there are none")
    try:
        return unigram_tokenizer(train_pieces(lines, vocab_size), lowercase=True)
    except RuntimeError as error:
        raise ValueError(f"no {vocab_size} word pieces can be learned from {len(lines)} texts: {error}") from error


def train_pieces(lines: Iterable[str], vocab_size: int, **options) -> list[tuple[str, float]]:
    """(piece, log-probability) of at most `vocab_size` pieces in the order of their ids, those of `SPECIAL` first;
    deterministic. Options are SentencePiece's. Raises its RuntimeError or OSError where nothing can be learned."""
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=trained, model_type="unigram", vocab_size=vocab_size,
        hard_vocab_limit=False, normalization_rule_name="identity", num_threads=1, minloglevel=2,
        **{f"{name.removesuffix('_token')}_id": index for index, name in enumerate(SPECIAL)}, **options)
    model = sentencepiece.SentencePieceProcessor(model_proto=trained.getvalue())
    return [(model.id_to_piece(index), model.get_score(index)) for index in range(model.get_piece_size())]
