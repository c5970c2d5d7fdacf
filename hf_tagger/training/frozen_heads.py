"""Fits what the training loop does not: the lexical head before it; after it, when the towers no longer move, the
kernel head and the fusion of all sources."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from accelerate.utils import broadcast, broadcast_object_list

from hf_tagger.catalog.batching.collate import TagEncoder
from hf_tagger.evaluation.predict import outputs_of_each
from hf_tagger.evaluation.protocols import reading_alike
from hf_tagger.model.lexical_features import LexicalFeatures
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.training.batches import Batches
from hf_tagger.training.budget import lexical_sample
from hf_tagger.training.context import RunContext
from hf_tagger.training.features import FeatureLoader
from hf_tagger.training.heads import kernel, lexical, logit_fusion
from hf_tagger.training.heads.logit_fusion import SourceRows
from hf_tagger.training.phases import Training
from hf_tagger.training.run_log import Step

ROWS_AT_ONCE = 256


def fit_lexical_head(run: RunContext, batches: Batches) -> None:
    """Fits the lexical head of a new model in place, on the training products that there is time for; a resumed run has
    it in its checkpoint."""
    model = batches.model
    if run.settings.start_from or model.lexical_head is None or run.resumable:
        return
    encode = TagEncoder(model.config.attributes)
    read = lexical_sample(run, batches.data)
    texts = ((record["text"], encode(record["tags"])) for record in batches.data.records("train")
             if record["text"] and read(record))
    with run.log.step("lexical head") as step:
        step.details = fit_lexical_on(model, texts, run.settings.model.lexical)
        step.result = f"{step.details['texts']:,} texts"
        if step.details["texts"]:
            step.result += f", log-loss {step.details['loss_before']:.3f} to {step.details['loss_after']:.3f}"
        if said := lexical.kept_within(model.config.attributes, run.settings.model.lexical, step.details):
            step.result += f"; {said}"


def fit_lexical_on(model: TaggerModel, texts: Iterable[tuple[str, np.ndarray]],
                   settings: lexical.LexicalSettings) -> dict[str, float]:
    """Fits the lexical head in place on texts and their `tag_labels` [T]; returns what `lexical.fit_lexical_head`
    does."""
    features = LexicalFeatures(**model.config.lexical_features)
    found = lexical.fit_lexical_head(model.lexical_head.cpu(), features, model.config.attributes, texts, settings)
    model.lexical_head.to(model.device)
    return found


def fit_kernel_head(run: RunContext, training: Training) -> None:
    """Fits the kernel head in place on the trained towers' features of training products, with and without the words of
    their tags."""
    if training.model.kernel_head is None or not run.settings.moves_closed_tags:
        return
    with run.log.step("kernel head") as step:
        masked = training.features.masked() if training.model.config.text_config is not None else None
        step.details = fit_kernel_on(training.model, training.features.plain(), masked, run.settings.model.kernel)
        step.result = f"{step.details['landmarks']:,} landmarks"


def fit_kernel_on(model: TaggerModel, plain: FeatureLoader, masked: FeatureLoader | None,
                  settings: kernel.KernelSettings, rows: np.ndarray | None = None) -> dict[str, float]:
    """Fits the kernel head in place on stored features (of these rows alone, int [n]); returns what
    `kernel.fit_kernel_head` does."""
    reads = np.array([model.config.text_config is not None, model.config.vision_config is not None])
    rows = np.arange(len(plain.ids)) if rows is None else rows
    rows = rows[(plain.present[0][rows] | ~reads).all(1)]

    def features(loader: FeatureLoader, name: str) -> torch.Tensor:
        return torch.from_numpy(getattr(loader, name)[0][rows].astype(np.float32))

    found = kernel.fit_kernel_head(model.kernel_head.cpu(), model.config.attributes, kernel.KernelRows(
        text=features(plain, "text") if reads[0] else None,
        masked=features(masked, "text") if reads[0] else None,
        has_masked=torch.from_numpy(masked.present[0][rows, 0]) if reads[0] else None,
        image=features(plain, "image") if reads[1] else None,
        labels=plain.tag_labels.of_rows(rows)), settings)
    model.kernel_head.to(model.device)
    return found


def fit_logit_fusion(run: RunContext, training: Training, out_of_fold: Sequence[SourceRows] = ()) -> None:
    """Fits in place how far each source is trusted, on the validation split under every protocol, and on `out_of_fold`,
    training products that the sources were not fitted on (see `training.refit`)."""
    model, settings = training.model, run.settings.evaluation
    if len(model.config.sources) == 1 or not run.settings.moves_closed_tags:
        return
    with run.log.step("logit fusion") as step:
        rows, one_in = [], 1
        if settings.validation in training.batches.data.catalog.splits:
            with run.accelerator.autocast():
                rows, one_in = logit_fusion.thinned(validation_rows(run, training.batches))
        rows += out_of_fold
        if run.accelerator.is_main_process:
            step.details = logit_fusion.fit_logit_fusion(
                model.logit_fusion, model.config.attributes, model.candidate_attribute, rows,
                run.settings.logit_fusion)
            step.result = "nothing to fit it on"
            if step.details:
                step.result = f"log-loss {step.details['loss_before']:.3f} to {step.details['loss_after']:.3f}"
            if one_in > 1:
                step.result += f"; on one in {one_in} validation products, as all exceed the memory for it"
        weights = model.logit_fusion.weights.weight.data
        weights.copy_(broadcast(weights))
        let_text_decide(model, rows, run.settings.logit_fusion, step)


def let_text_decide(model: TaggerModel, rows: Sequence[SourceRows], settings: logit_fusion.LogitFusionSettings,
                    step: Step) -> None:
    """Marks in the model's config, in place, the attributes that are told better without the photo."""
    found = {}
    if model.config.fusion != "attention":
        found = logit_fusion.text_decides(model.logit_fusion, model.config.attributes, model.candidate_attribute, rows,
                                          settings)
    (found,) = broadcast_object_list([found])
    for entry in model.config.attributes:
        entry.pop("decided_by", None)
        if entry["name"] in found:
            entry["decided_by"] = "text"
            both, alone = found[entry["name"]]
            step.result += (f"\n{entry['name']}: where there is text, it decides without the photo (log-loss "
                            f"{alone:.3f}, with it {both:.3f})")


def validation_rows(run: RunContext, batches: Batches) -> Iterator[SourceRows]:
    """All validation products under every protocol; where one has other texts, these are taken to be masked."""
    for alike in reading_alike(run.settings.evaluation.protocols):
        protocols = list(alike.values())
        found = batches.evaluation(run.settings.evaluation.validation, protocols[0], whole=True)
        without = [protocol.without for protocol in protocols]
        for index, batch, outputs in outputs_of_each(batches.model, found, without):
            hidden = "words" if protocols[0].text is not None else "".join(without[index][:1])
            yield SourceRows(outputs.source_logits, outputs.fusion_features,
                             batch["tag_labels"].to(batches.model.device), hidden, batch["ids"], batch["tags"])


def parts_of(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start:start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
