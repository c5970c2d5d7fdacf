"""Keep of a multilingual text tower the word pieces that a catalogue uses.

    hf_tagger prune-vocabulary runs/fashion recipes/configs/fashion.yaml --output_dir runs/fashion-small

MODEL is a model folder, an adapter folder or a Hub id. CATALOGUE is a YAML file with source and schema. Pieces are
counted in one pass over the texts of its training split, or those of --splits; special tokens, single characters and
the pieces of the tags' names stay in any case, so that any new word can be spelled. With --only_scripts_used, letters
of scripts that none of these texts is written in go, too: words in them then read as unknown. The output
folder gets the pruned model and pruning.json: sizes, and how many texts of the validation split are still cut into the
same pieces.
"""

import argparse
import json
import sys
from pathlib import Path

from hf_tagger import cli
from hf_tagger.catalog.quarantine import Refusal
from hf_tagger.catalog.settings import open_catalog
from hf_tagger.evaluation.settings import load_checked_evaluation


@cli.recipe
def main(arguments: list[str]) -> None:
    options, overrides = parse(arguments)
    settings = load_checked_evaluation(options.catalogue, options.model, overrides)
    import torch
    from tqdm import tqdm

    from hf_tagger.deployment.vocabulary import count_pieces, pieces_to_keep, prune_vocabulary
    from hf_tagger.evaluation.protocols import open_tagger
    from hf_tagger.training.whole import written_whole

    tagger = open_tagger(options.model, torch.device("cpu"))
    catalog = open_catalog(settings.catalog, Path(options.output_dir, "catalog")).without_tags()
    model, processor = tagger.model, tagger.processor
    names = [f"{entry['name']}: {tag}" for entry in model.config.attributes for tag in entry["tags"]]
    counts = options.min_count * count_pieces(names, processor)
    for split in options.splits:
        counts += count_pieces(tqdm(texts(catalog, split), desc=split, unit="text"), processor)
    keep = pieces_to_keep(counts, processor, options.min_count, not options.only_scripts_used)
    found = {"pieces": len(processor.tokenizer), "kept": len(keep), "parameters": parameters(model)}
    held_out = list(texts(catalog, settings.evaluation.validation))
    before = [pieces(processor, text) for text in held_out]
    prune_vocabulary(model, processor, keep)
    after = [pieces(processor, text) for text in held_out]
    found |= {"parameters_left": parameters(model), "texts_of_validation": len(held_out),
              "texts_cut_alike": sum(old == new for old, new in zip(before, after, strict=True))}
    with written_whole(options.output_dir) as folder:
        tagger.save_pretrained(folder)
        (folder / "pruning.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"{found['kept']:,} of {found['pieces']:,} word pieces kept; parameters: {found['parameters']:,} before, "
          f"{found['parameters_left']:,} now; of {len(held_out)} texts of validation, {found['texts_cut_alike']} are "
          "cut into the same pieces")
    print(catalog.totals())


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = cli.parser(__doc__, "model", "catalogue")
    parser.add_argument("--output_dir", required=True, help="folder for the pruned model")
    parser.add_argument("--splits", nargs="+", default=["train"], help="splits whose texts are counted")
    parser.add_argument("--min_count", type=int, default=1, help="occurrences from which a piece is kept")
    parser.add_argument("--only_scripts_used", action="store_true",
                        help="leave out single letters of scripts that the texts do not use")
    return parser.parse_known_args(arguments)


def texts(catalog, split: str):
    records = (record for record in catalog.records(split) if not isinstance(record, Refusal))
    return (record["text"] for record in records if record["text"])


def pieces(processor, text: str) -> list[str]:
    return processor.tokenizer.convert_ids_to_tokens(processor.tokenize([text])["input_ids"][0])


def parameters(model) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
