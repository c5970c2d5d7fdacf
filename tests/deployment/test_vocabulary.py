"""A pruned vocabulary: the same pieces and logits where all pieces are kept, another spelling elsewhere."""

import json

import numpy as np
import pytest
import torch
import yaml
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, PreTrainedTokenizerFast, pipeline

from hf_tagger.deployment.vocabulary import PruningError, count_pieces, pieces_to_keep, prune_vocabulary
from hf_tagger.model.configuration_tagger import TaggerConfig
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.training.unigram_tokenizer import train_unigram_tokenizer
from recipes import prune_vocabulary as recipe
from tests.catalog.files import write_parquet
from tests.shops import SCHEMA, shop_rows

GERMAN = [f"{colour} {thing} aus {stuff}" for colour in ("rotes", "blaues", "gruenes") for stuff in ("Leinen", "Wolle")
          for thing in ("Kleid", "Hemd", "Tasche")]
ENGLISH = [f"{colour} {thing} made of {stuff}" for colour in ("red", "blue", "green") for stuff in ("linen", "wool")
           for thing in ("dress", "shirt", "bag", "mug")]


def wordpiece():
    words = sorted({word for text in GERMAN + ENGLISH for word in text.split()})
    letters = sorted({letter for word in words for letter in word})
    vocabulary = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", *words, *letters, *(f"##{letter}" for letter in letters)]
    tokenizer = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(dict.fromkeys(vocabulary))},
                                           unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]",
                                   sep_token="[SEP]")


def tagger_of(tokenizer):
    torch.manual_seed(0)
    text = AutoConfig.for_model("bert", vocab_size=len(tokenizer) + 5, hidden_size=16, num_hidden_layers=1,
                                num_attention_heads=2, intermediate_size=32, pad_token_id=tokenizer.pad_token_id)
    attributes = [{"name": "colour", "kind": "single", "tags": ["Red", "Blue"]},
                  {"name": "category", "kind": "single", "tags": ["Mug", "Dress"]},
                  {"name": "features", "kind": "multi", "tags": ["Waterproof", "Handmade"]}]
    model = TaggerModel(TaggerConfig(attributes=attributes, text_config=text, hidden_size=16, lexical_buckets=64,
                                     name_match=True))
    processor = TaggerProcessor(tokenizer=tokenizer, text_prefix="red ")
    model.name_tags(processor)
    model.lexical_head.table.weight.data.normal_()
    return model.eval(), processor


def logits(model, processor, text):
    with torch.no_grad():
        return model(**processor(text=[text])).tag_logits


@pytest.mark.parametrize("make", [wordpiece, lambda: train_unigram_tokenizer(GERMAN + ENGLISH, vocab_size=120)])
def test_texts_whose_pieces_are_kept_get_the_same_logits(make, tmp_path):
    model, processor = tagger_of(make())
    wanted = [logits(model, processor, text) for text in ENGLISH]
    before = len(processor.tokenizer)
    keep = pieces_to_keep(count_pieces(ENGLISH, processor), processor)
    prune_vocabulary(model, processor, keep)
    assert len(processor.tokenizer) == len(keep) < before
    assert model.get_input_embeddings().weight.shape[0] == model.config.text_config.vocab_size == len(keep)
    ProductTaggingPipeline(model, processor=processor).save_pretrained(tmp_path)
    loaded = pipeline("product-tagging", model=str(tmp_path), device="cpu")
    for text, old in zip(ENGLISH, wanted, strict=True):
        torch.testing.assert_close(logits(model, processor, text), old, rtol=0, atol=0)
        torch.testing.assert_close(logits(loaded.model, loaded.processor, text), old)
    # What was left out is spelled in letters, not lost.
    pieces = processor.tokenizer.tokenize("rotes Kleid")
    assert processor.tokenizer.unk_token not in pieces and "".join(pieces).replace("##", "").lower().endswith("kleid")


def test_rare_pieces_go_and_special_ones_stay():
    model, processor = tagger_of(wordpiece())
    counts = count_pieces(["red dress", "red shirt"], processor)
    kept = processor.tokenizer.convert_ids_to_tokens(pieces_to_keep(counts, processor, min_count=2).tolist())
    assert "red" in kept and "dress" not in kept and "d" in kept
    assert {"[PAD]", "[UNK]", "[CLS]", "[SEP]"} <= set(kept)


def test_letters_of_scripts_that_no_text_uses_can_go():
    greek, cyrillic = "κόκκινο φόρεμα", "красное платье"
    model, processor = tagger_of(train_unigram_tokenizer([*ENGLISH, *GERMAN, greek, cyrillic], vocab_size=150))
    counts = count_pieces([*ENGLISH, greek, "size 42, 100 %"], processor)
    tokens = processor.tokenizer.convert_ids_to_tokens
    kept, fewer = (set(tokens(pieces_to_keep(counts, processor, all_scripts=every).tolist()))
                   for every in (True, False))
    assert kept - fewer == {letter for letter in cyrillic if letter in kept}
    assert {"%", "4"} & kept == {"%", "4"} & fewer
    prune_vocabulary(model, processor, pieces_to_keep(counts, processor, all_scripts=False))
    russian, german = (processor.tokenizer(text, add_special_tokens=False)["input_ids"]
                       for text in (cyrillic, GERMAN[0]))
    assert processor.tokenizer.unk_token_id in russian and processor.tokenizer.unk_token_id not in german
    assert torch.isfinite(logits(model, processor, cyrillic)).all()


def test_a_bpe_tokenizer_is_refused():
    tokenizer = Tokenizer(models.BPE({"<pad>": 0, "a": 1, "b": 2, "ab": 3}, [("a", "b")]))
    model, processor = tagger_of(PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>"))
    with pytest.raises(PruningError, match="BPE"):
        prune_vocabulary(model, processor, np.arange(3))


def test_the_recipe_saves_a_smaller_model(tmp_path, capsys):
    model, processor = tagger_of(train_unigram_tokenizer(
        GERMAN + ENGLISH + [row["title"] for row in shop_rows(0, 60) if row["title"]], vocab_size=150))
    ProductTaggingPipeline(model, processor=processor).save_pretrained(tmp_path / "model")
    files = {}
    for split, (start, stop) in {"train": (0, 40), "validation": (40, 60)}.items():
        files[split] = str(tmp_path / f"{split}.parquet")
        write_parquet(files[split], shop_rows(start, stop))
    config = {"catalog": {"source": {"files": files}, "schema": SCHEMA | {"images": []}}}
    (tmp_path / "shop.yaml").write_text(yaml.safe_dump(config))
    assert recipe.main([str(tmp_path / "model"), str(tmp_path / "shop.yaml"), "--output_dir", str(tmp_path / "small"),
                        "--only_scripts_used"]) == 0
    found = json.loads((tmp_path / "small" / "pruning.json").read_text())
    assert found["kept"] < found["pieces"] and found["parameters_left"] < found["parameters"]
    assert found["texts_cut_alike"] == found["texts_of_validation"] > 0
    assert f"{found['kept']:,} of {found['pieces']:,} word pieces kept" in capsys.readouterr().out
    product = "red mug waterproof"
    before, after = (pipeline("product-tagging", model=str(tmp_path / name), device="cpu")(product)
                     for name in ("model", "small"))
    assert [(tag["label"], tag["score"]) for tag in before] == [(tag["label"], tag["score"]) for tag in after]
