"""The end of a run: calibration, and the report on the test split."""

import json
import shutil
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from accelerate.utils import gather_object

from hf_tagger.catalog.completeness import label_frequency
from hf_tagger.evaluation.calibration import fit_calibration
from hf_tagger.evaluation.predict import Predictions, predict
from hf_tagger.evaluation.protocols import predict_protocols
from hf_tagger.evaluation.results import measurable
from hf_tagger.evaluation.tables import score_table
from hf_tagger.evaluation.writing import free_form_table, score_written
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.training.batches import Batches
from hf_tagger.training.context import RunContext
from hf_tagger.training.data import TrainingData
from hf_tagger.training.heads.logit_fusion import SourceRows
from hf_tagger.training.heads.written_scores import fit_free_form
from hf_tagger.training.whole import written_whole


def calibrate(run: RunContext, batches: Batches, out_of_fold: Sequence[SourceRows] = ()) -> None:
    """Fits temperatures and thresholds on the validation split, as the first protocol sees it, and on `out_of_fold`,
    what sources say of training products that they were not fitted on; writes them into the model's config."""
    settings, model = run.settings.evaluation, batches.model
    validates = settings.validation in batches.data.catalog.splits
    if run.settings.calibration is None or not (validates or out_of_fold):
        return
    with run.log.step("calibration") as step:
        found, protocol = fused(model, out_of_fold), settings.first_protocol
        if validates:
            with run.accelerator.autocast():
                found = found.and_of(predict(model, batches.evaluation(settings.validation, protocol),
                                             protocol.without))
        attributes, partial_lists = with_lists(found.attributes, batches.data)
        model.config.attributes, step.details = fit_calibration(found.decided(attributes), run.settings.calibration)
        fitted = [entry for entry in step.details.values() if "log_loss_before" in entry]
        before, after = (np.mean([entry[f"log_loss_{when}"] for entry in fitted] or [np.nan])
                         for when in ("before", "after"))
        step.result = (f"{found.products}, log-loss {before:.3f} to {after:.3f}, mean of {len(fitted)} "
                       "attributes")
        step.result = "\n".join([step.result, *partial_lists])


def with_lists(attributes: Sequence[dict], data: TrainingData) -> tuple[list[dict], list[str]]:
    """The attributes with the "lists" that training products have; those whose lists are partial with their
    "label_frequency" instead, and a line about each of these."""
    schema, found, lines = data.catalog.schema, [], []
    for entry in attributes:
        entry = {key: value for key, value in entry.items() if key not in ("label_frequency", "lists")}
        spec = schema.attributes.get(entry["name"]) or (schema.pairs and schema.pairs.discover)
        if entry["kind"] == "multi" and spec:
            share, _ = label_frequency(spec, data.vocabulary.agreement.get(entry["name"]))
            if share < 1.0:
                entry["label_frequency"] = round(share, 3)
                lines.append(f"{entry['name']}: lists are taken to hold {share:.0%} of the right tags "
                             "(absent: no takes them to be complete)")
            elif lists := data.vocabulary.lists.get(entry["name"]):
                column = {tag: number for number, tag in enumerate(entry["tags"])}
                known = [tags for tags in lists["common"] if column.keys() >= set(tags)]
                entry["lists"] = {"used": False, "never_empty": lists["never_empty"],
                                  "common": [[column[tag] for tag in tags] for tags in known]}
        found.append(entry)
    return found, lines


@torch.no_grad()
def fused(model: TaggerModel, rows: Sequence[SourceRows]) -> Predictions:
    """What the model makes of what its sources say of whole products."""
    attributes, candidates = model.config.attributes, model.candidate_attribute
    whole, alone = ([part for part in rows if part.hidden == hidden] for hidden in ("", "image"))
    logits, of_text = (np.concatenate([np.zeros((0, len(candidates)), np.float32), *(
        model.logit_fusion(part.sources, part.features, candidates).float().cpu().numpy() for part in parts)])
        for parts in (whole, alone))
    ids = [product for part in whole for product in part.ids]
    place = {product: number for number, product in enumerate(product for part in alone for product in part.ids)}
    columns = np.array([entry.get("decided_by") == "text" for entry in attributes])[candidates.cpu().numpy()]
    for row, product in enumerate(ids):
        if product in place:
            logits[row, columns] = of_text[place[product], columns]
    return Predictions(attributes, ids, [tags for part in whole for tags in part.tags], logits=logits
                       ).decided(attributes)


def calibrate_written(run: RunContext, batches: Batches) -> None:
    """Fits the scores of written tags to be probabilities, on the validation split under every protocol, and writes
    what was fitted into the model's config."""
    settings = run.settings.evaluation
    if run.settings.model.decoder is None or settings.validation not in batches.data.catalog.splits:
        return
    with run.log.step("scores of written tags") as step:
        # Every process fits on all products: the result is the same.
        views = [(batches.evaluation(settings.validation, protocol, whole=True), protocol.without)
                 for protocol in settings.protocols.values()]
        step.details = fit_free_form(batches.model, batches.processor, views, settings.one_attribute)
        step.result = "nothing to fit them on"
        if step.details:
            step.result = f"tags are listed from {step.details['min_score']:.2f}"


def report(run: RunContext, batches: Batches) -> dict[str, dict[str, float]]:
    """Scores the test split under every protocol, writes metrics.json, prints tables, and says how to use the model."""
    settings, model = run.settings.evaluation, batches.model
    results, written = {}, {}
    if settings.split in batches.data.catalog.splits:
        with run.log.step(f"scores on {settings.split}") as step:
            with run.accelerator.autocast():
                found = predict_protocols(model, settings.protocols, partial(batches.evaluation, settings.split))
            found, left_out = measurable(found, needed=False)
            results = {name: predictions.metrics() for name, predictions in found.items()}
            for name in results if run.settings.model.decoder is not None else ():
                protocol = settings.protocols[name]
                written[name] = score_written(model, batches.processor, batches.evaluation(settings.split, protocol),
                                              protocol.without, settings.one_attribute)
                results[name] |= {f"free_form/{metric}": value for metric, value in written[name].items()}
            best = [f"macro-F1 {scores['macro_f1']:.3f} ({name})" for name, scores in results.items()][:1]
            drawn = [f"of {each.products}" for each in found.values() if each.drawn_from is not None][:1]
            step.result = "\n".join([*best, *drawn, *left_out])
            step.details = results
    quarantine = batches.data.quarantine
    for other in gather_object([quarantine.lost]):
        quarantine.add_lost(other)
    if not run.accelerator.is_main_process:
        return results
    with written_whole(run.folder) as folder:
        (folder / "metrics.json").write_text(json.dumps({settings.split: results}, indent=1) + "\n")
    run.log.say(score_table(results, [entry["name"] for entry in model.config.attributes]))
    if written:
        run.log.say(free_form_table(written))
    if quarantine.counts:
        run.log.say(quarantine.summary())
    for features in run.checkpoints.glob("features.rank*"):
        shutil.rmtree(features)
    run.log.say(f"model folder: {run.folder}")
    product = "'Red cotton dress'" if model.config.text_config is not None else "{'image': 'photo.jpg'}"
    run.log.say(f'python -c "import hf_tagger; from transformers import pipeline; '
                f"print(pipeline('product-tagging', model='{run.folder}')({product}))\"")
    run.log.say(quarantine.totals())
    return results
