"""The sources that are fitted by themselves, not by the training loop: words before it, remembered products and the
fusion of all sources after it, on what the towers say when they no longer move."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from accelerate.utils import broadcast

from hf_tagger.evaluation.predict import outputs_of_each
from hf_tagger.evaluation.protocols import reading_alike
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.towers import TEXT
from hf_tagger.training.arguments import ModelSettings
from hf_tagger.training.augment import masked_text
from hf_tagger.training.batches import Batches
from hf_tagger.training.context import RunContext
from hf_tagger.training.exemplars import fit_exemplars, rarest_rows
from hf_tagger.training.features import FeatureLoader
from hf_tagger.training.gate import fit_gate
from hf_tagger.training.phases import Training
from hf_tagger.training.settings import WordsSettings
from hf_tagger.training.words import Texts, fit_words, text_batches

ROWS_AT_ONCE = 256
Evidence = Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
TextSource = Callable[[], Texts]


def fit_lexical_head(run: RunContext, batches: Batches) -> None:
    """Fits what the words of a text say in a new model, on all training products; a resumed run has it in its
    checkpoint."""
    model, settings = batches.model, run.settings.model.words
    if run.settings.start_from or model.words is None or run.resumable:
        return

    def texts(augment=None):
        return text_batches(batches.data.records("train"), batches.processor, model.config.attributes, augment)

    with run.log.step("lexical head") as step:
        step.details = fit_words_on(model, texts, lambda: texts(masked_text), settings)
        step.result = "; then ".join(
            f"{view['texts']:,} texts, log-loss {view['loss_before']:.3f} to {view['loss_after']:.3f}"
            for view in step.details)


def fit_words_on(model: TaggerModel, plain: TextSource, masked: TextSource, settings: WordsSettings) -> list[dict]:
    """Fits the words of a model in place on texts as they are and, for a second view, without the words of their own
    tags. Returns what `fit_words` does."""
    views = [[(1.0, plain())]]
    if settings.masked_view:
        views.append([(1.0, plain()), (settings.masked_weight, masked())])
    fitted = fit_words(model.words.cpu(), model.config.attributes, model.candidate_attribute.cpu(), views, settings)
    model.words.to(model.device)
    return fitted


def fit_kernel_head(run: RunContext, training: Training) -> None:
    """Remembers training products as the trained towers see them, with and without their tags' words."""
    if training.model.exemplars is None or not run.settings.moves_closed_tags:
        return
    with run.log.step("kernel head") as step:
        features = training.features
        step.details = fit_exemplars_on(training.model, features.plain(), features.masked(), run.settings.model)
        step.result = f"{step.details['exemplars']:,} products"


def fit_exemplars_on(model: TaggerModel, plain: FeatureLoader, masked: FeatureLoader, settings: ModelSettings,
                     rows: np.ndarray | None = None) -> dict[str, int]:
    """Fits the exemplars of a model in place on stored features (of these rows alone, int [n])."""
    attributes, settings = model.config.attributes, settings.exemplars
    found = exemplar_rows(plain, masked, attributes, settings, rows)
    fitted = fit_exemplars(model.exemplars.cpu(), attributes, found, settings)
    model.exemplars.to(model.device)
    return fitted


def exemplar_rows(store: FeatureLoader, masked: FeatureLoader, attributes: list[dict], settings,
                  rows: np.ndarray | None = None) -> Evidence:
    """What `fit_exemplars` reads: products with text and photo, and the same without the words of their own tags, which
    make a photo look superfluous. Of more than `settings.count` the ones with the rarest tags."""
    both = store.present[0].all(1)
    if rows is not None:
        wanted = np.zeros(len(both), bool)
        wanted[rows] = True
        both &= wanted
    rows = np.flatnonzero(both)
    rows = rows[rarest_rows(torch.from_numpy(store.tag_labels[rows]), attributes, settings, settings.count // 2)]
    for part in parts_of(rows):
        plain, told = (loader.batch(part.tolist(), [0] * len(part)) for loader in (store, masked))
        labels, image = plain["tag_labels"], plain["features"].image
        yield plain["features"].text, image, labels
        there = told["features"].present[:, TEXT]
        if bool(there.any()):
            yield told["features"].text[there], image[there], labels[there]


def fit_logit_fusion(run: RunContext, training: Training, out_of_fold: Evidence = ()) -> None:
    """How far each source is trusted, from the validation split seen under every protocol.

    Args:
        out_of_fold: what the sources say of training products that they were not fitted on, see `training.refit`.
    """
    model, settings = training.model, run.settings.evaluation
    if model.evidence_gate.sources == 1 or not run.settings.moves_closed_tags:
        return
    with run.log.step("logit fusion") as step:
        rows = []
        if settings.validation in training.batches.data.catalog.splits:
            with run.accelerator.autocast():
                rows = list(validation_evidence(run, training.batches))
        rows += out_of_fold
        if run.accelerator.is_main_process:
            step.details = fit_gate(model.evidence_gate, model.config.attributes, model.candidate_attribute, rows,
                                    run.settings.gate)
            step.result = "nothing to fit it on"
            if step.details:
                step.result = f"log-loss {step.details['loss_before']:.3f} to {step.details['loss_after']:.3f}"
        for fitted in (model.evidence_gate.weights.weight.data, model.evidence_gate.deference):
            fitted.copy_(broadcast(fitted))


def validation_evidence(run: RunContext, batches: Batches) -> Iterator[tuple[torch.Tensor, ...]]:
    """What `fit_gate` reads, of all validation products under every protocol."""
    for alike in reading_alike(run.settings.evaluation.protocols):
        protocols = list(alike.values())
        found = batches.evaluation(run.settings.evaluation.validation, protocols[0], whole=True)
        without = [protocol.without for protocol in protocols]
        for _, batch, outputs in outputs_of_each(batches.model, found, without):
            yield outputs.evidence, outputs.gate_features, batch["tag_labels"].to(batches.model.device)


def parts_of(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[start:start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
