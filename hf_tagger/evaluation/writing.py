"""Lets a tagger's decoder write tags for a split, and collects what the metrics of free-form tags need."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from accelerate.utils import gather_object

from hf_tagger.evaluation.free_form import score_free_form
from hf_tagger.evaluation.predict import outputs_of
from hf_tagger.evaluation.tables import text_table
from hf_tagger.model.decisions import best_first, list_tags
from hf_tagger.model.decoder import FreeFormTagger


@dataclass
class Written:
    """What a decoder wrote for N products whose free-form tags are known."""

    tags: list[list[dict[str, Any]]] = field(default_factory=list)  # {"label", "score", "attribute"}, best first
    references: list[list[str]] = field(default_factory=list)  # the true tags
    closed: list[list[dict[str, Any]]] = field(default_factory=list)  # the heads' choice, of the same attributes
    closed_scores: list[list[float | None]] = field(default_factory=list)  # of `tags`, where they are closed tags
    texts: list[str | None] = field(default_factory=list)
    languages: list[str | None] = field(default_factory=list)
    constrained: list[list[dict[str, Any]]] = field(default_factory=list)  # as tags, in vocabulary mode, if asked for

    def metrics(self, vocabulary: Iterable[str] = ()) -> dict[str, float]:
        """`score_free_form` of the written tags, of the closed tags as if they were written ("closed/..."), of both
        together, as they are listed ("together/...") and, if there are any, of those in vocabulary mode
        ("constrained/...")."""
        together = [best_first(closed, tags) for closed, tags in zip(self.closed, self.tags, strict=True)]
        modes = {"": self.tags, "closed/": self.closed, "together/": together}
        if self.constrained:
            modes["constrained/"] = self.constrained
        return {f"{mode}{name}": value for mode, rows in modes.items() for name, value in score_free_form(
            [[tag["label"] for tag in tags] for tags in rows], self.references, self.texts, self.languages,
            list(vocabulary)).items()}


def write(
    tagger: FreeFormTagger, batches: Iterable[dict[str, Any]], without: Iterable[str] = (), one_attribute: bool = False,
    gather: bool = True, both_modes: bool = False,
) -> Written:
    """
    Args:
        batches: of a `Collator`, from a schema with `free_form`; without: modalities hidden from the model.
        one_attribute: ask for the attributes that are known of a product, one at a time, and for no other; an answer
            counts whatever its score.
        gather: join the products of all processes. both_modes: also write in vocabulary mode.
    """
    found, config = Written(), tagger.config
    options = {"min_score": 0.0} if one_attribute else {}
    for batch, outputs in outputs_of(tagger.model, batches, without, output_memory=True):
        scores = tagger.model.tag_scores(outputs.tag_logits, outputs.none_logits)
        chosen, scores = tagger.model.predicted_tags(scores).tolist(), scores.float().cpu().numpy()
        sources = [{name: tags for name, tags in row.items() if tags is not None} for row in batch["free_form"]]
        asked = [[None] for _ in sources]
        if one_attribute:
            asked = [[name for name in row if name in config.decoder["attributes"]] for row in sources]
        tags = tagger(outputs.memory, batch["languages"], scores, asked=asked, **options)
        constrained = None
        if both_modes:
            constrained = tagger(outputs.memory, batch["languages"], scores, asked=asked, constrained=True, **options)
        for row, known in enumerate(sources):
            if known:
                found.tags.append(tags[row])
                found.references.append(sorted({tag for given in known.values() for tag in given}))
                found.closed_scores.append([tagger.closed_score(tag, scores[row]) for tag in tags[row]])
                found.closed.append(best_first(list_tags(config.attributes, scores[row].tolist(), chosen[row],
                                                         attributes=list(known)), []))
                found.texts.append(batch["texts"][row])
                found.languages.append(batch["languages"][row])
                if constrained is not None:
                    found.constrained.append(constrained[row])
    if gather:
        parts = gather_object([tuple(vars(found).values())])
        found = Written(*([item for part in column for item in part] for column in zip(*parts, strict=True)))
    return found


def score_written(
    model, processor, batches: Iterable[dict[str, Any]], without: Iterable[str] = (), one_attribute: bool = False
) -> dict[str, float]:
    """What a model writes of a split in both modes, as `Written.metrics`; arguments as in `write`."""
    vocabulary = [tag for entry in model.config.attributes for tag in entry["tags"]]
    written = write(FreeFormTagger(model, processor), batches, without, one_attribute, both_modes=True)
    return written.metrics(vocabulary)


def free_form_table(results: dict[str, dict[str, float]]) -> str:
    """Set scores of the written tags (rows) per protocol (columns)."""
    shown = {"exact match": "exact_match", "exact match, closed tags": "closed/exact_match",
             "F1@M": "f1@M", "F1@5": "f1@5", "F1@M, constrained": "constrained/f1@M",
             "F1@M, closed tags": "closed/f1@M", "F1@M, both together": "together/f1@M",
             "absent from text, F1@M": "absent/f1@M",
             "duplicates": "duplicate_rate",
             "outside vocabulary": "out_of_vocabulary_rate",
             "outside vocabulary, constrained": "constrained/out_of_vocabulary_rate"}
    return "free-form tags\n" + text_table({label: {name: f"{scores[metric]:.3f}" for name, scores in results.items()}
                                            for label, metric in shown.items()})
