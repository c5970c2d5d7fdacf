"""The augmentation phase of a run: the tag head alone is retrained, on real and extra pooled vectors."""

import copy
import json
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from torch import Tensor

from hf_tagger.augmentation.diagnostics import compare, picture
from hf_tagger.augmentation.gan import SemiSupervisedGan
from hf_tagger.augmentation.methods import Problem, augment
from hf_tagger.augmentation.retrain import AugmentationStopped
from hf_tagger.augmentation.settings import AugmentationSettings
from hf_tagger.augmentation.vectors import TaggedVectors, write_vectors
from hf_tagger.model.decisions import attribute_slices
from hf_tagger.model.modeling_tagger import TaggerModel
from hf_tagger.model.processing_tagger import TaggerProcessor
from hf_tagger.training.checkpoint import write_safetensors
from hf_tagger.training.context import RunContext
from hf_tagger.training.features import FeatureLoader
from hf_tagger.training.loop import to_device
from hf_tagger.training.losses import TaggingLoss
from hf_tagger.training.phases import Training
from hf_tagger.training.settings import LossSettings


@torch.no_grad()
def pooled_vectors(model: TaggerModel, features: FeatureLoader, settings: AugmentationSettings,
                   seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Pooled vectors [B, H] and labels [B, T] of every product in every view; where these are more than `max_rows`,
    products with rare tags and a random choice of the others."""
    model.eval()
    draw = random.Random(f"augmentation {seed}")
    rare = torch.tensor([count <= settings.rare for attribute in model.config.attributes
                         for count in attribute["counts"]])
    share = settings.max_rows / (len(features.ids) * len(features.present))
    for batch in features.all_views():
        labels = batch["tag_labels"]
        kept = torch.tensor([share >= 1 or draw.random() < share for _ in labels]) | (labels[:, rare] == 1).any(1)
        if kept.any():
            vectors = model.encoder(features=to_device(batch["features"], model.device)).pooled
            yield vectors[kept.to(vectors.device)].cpu(), labels[kept]


def tag_embeddings(model: TaggerModel, processor: TaggerProcessor) -> Tensor:
    """Vectors of the tags [T, E], by which a generator tells them apart: encodings of "attribute: tag",
    centred and of unit length; without a text tower, the unit vectors."""
    if model.config.text_config is None:
        return torch.eye(model.config.num_tags)
    names = [f"{attribute['name']}: {tag}" for attribute in model.config.attributes for tag in attribute["tags"]]
    encoded = model.encode_names(names, processor).float().cpu()
    return torch.nn.functional.normalize(encoded - encoded.mean(0), dim=1)


def balanced_losses(attributes: list[dict], settings: LossSettings) -> Callable:
    """A function (tag counts [T], none counts [A]) -> the mean `TaggingLoss` of logits [B, T + A] and labels [B, T],
    for rows in which tags have these counts."""

    def loss_for(counts: Tensor, nones: Tensor):
        counted = [{**attribute, "counts": counts[where].tolist(), "none_count": none} for attribute, where, none
                   in zip(attributes, attribute_slices(attributes), nones.tolist(), strict=True)]
        loss, tags = TaggingLoss(counted, settings), len(counts)
        return lambda logits, labels: loss(logits[:, :tags], logits[:, tags:], labels).mean()

    return loss_for


def augment_rare_tags(
    model: TaggerModel, processor: TaggerProcessor, features: FeatureLoader, settings: AugmentationSettings,
    loss: LossSettings, folder: Path, seed: int,
    log: Callable[[dict[str, float], int], None] | None = None,
) -> dict[str, Any]:
    """Retrains `model.tag_head` in place.

    Args:
        features: of the training split, from the towers as they are now.
        loss: as in training, but for `logit_adjustment_tau`, which is the augmentation's own.
        folder: gets the generator, a report of how real the vectors look, and their picture.

    Returns a summary for a person. Raises AugmentationStopped, with the tag head as it was.
    """
    data = write_vectors(folder / "cache", pooled_vectors(model, features, settings, seed))
    attributes = model.config.attributes
    head = model.tag_head.cpu()
    weights = [weight for name, weight in head.named_parameters() if ".original_module." not in f".{name}"]
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    head.requires_grad_(False)
    head.eval()
    settled = copy.deepcopy(head)
    for weight in weights:
        weight.requires_grad_(True)
    losses = balanced_losses(attributes, replace(loss, logit_adjustment_tau=settings.logit_adjustment_tau))
    problem = Problem(data, attributes, tag_embeddings(model, processor), settled, losses)
    try:
        source = augment(problem, head, settings, seed, log)
    except Exception:
        head.load_state_dict(before)
        raise
    finally:
        head.to(model.device)
    summary = {"method": settings.method, "vectors": len(data)}
    if "gan" in settings.method:
        summary |= save_gan(source, data, rare_tags(attributes, settings), folder, seed)
    shutil.rmtree(folder / "cache")
    return summary


def rare_tags(attributes: list[dict], settings: AugmentationSettings) -> dict[str, int]:
    """{"attribute: tag": column} of the tags with at most `settings.rare` training products, rarest first."""
    tags = [(attribute["name"], tag, count) for attribute in attributes
            for tag, count in zip(attribute["tags"], attribute["counts"], strict=True)]
    found = [(count, f"{name}: {tag}", column) for column, (name, tag, count) in enumerate(tags)
             if count <= settings.rare and (not settings.attributes or name in settings.attributes)]
    return {name: column for _, name, column in sorted(found, key=lambda item: item[0])}


def save_gan(gan: SemiSupervisedGan, data: TaggedVectors, rare: dict[str, int], folder: Path,
             seed: int) -> dict[str, Any]:
    """Writes the generator as safetensors; `report.json` and `vectors.png` show how real its vectors look."""
    write_safetensors(folder / "generator.safetensors", gan.generator.state_dict())
    vectors, labels = gan.draw(4096, torch.Generator().manual_seed(seed))
    report = {"stopped": gan.stopped, "losses": gan.history, "tags": compare(data, rare, vectors, labels)}
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    picture(folder / "vectors.png", data, rare, vectors, labels)
    return {"stopped": gan.stopped, "report": str(folder / "report.json")}


def retrain_for_rare_tags(run: RunContext, training: Training) -> None:
    """The augmentation phase of a run, in place. The main process retrains the tag head on all products, the others get
    its weights."""
    settings, model = run.settings.augmentation, training.model
    if settings is None:
        return
    with run.log.step("rare tags") as step:
        if run.accelerator.is_main_process:
            try:
                step.details = augment_rare_tags(
                    model, training.batches.processor, training.features.plain(), settings,
                    run.settings.training.loss, run.folder / "augmentation", run.settings.seed, run.accelerator.log)
                step.result = f"tag head retrained by {settings.method}, {step.details['vectors']:,} real vectors"
            except AugmentationStopped as error:
                step.result = f"stopped, the tag head stays as it was: {error}"
        for weight in model.tag_head.parameters():
            weight.data.copy_(broadcast(weight.data))
