"""Keeps a run within its minutes: where the towers cannot look at all products, they look at a sample, and phases that
move them take fewer steps."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from itertools import islice

from hf_tagger.catalog.reading.partial import Part, PartialCatalog
from hf_tagger.evaluation.predict import embeddings_of, hash_draw
from hf_tagger.training.arguments import RunSettings
from hf_tagger.training.batches import Batches
from hf_tagger.training.context import RunContext
from hf_tagger.training.data import TrainingData
from hf_tagger.training.heads.lexical import coded_attributes
from hf_tagger.training.whole import whole_file

# What the towers may take of the budget; the heads that are fitted on what they see need the rest.
LOOKING = 0.6
# Of this, what phases that move the towers get, if there are any. A step costs about so many looks at its products:
# with LoRA on both default encoders, 37 products a second were looked at and 4 trained on (one thread).
MOVING, STEP = 0.5, 8
# Of the rest, what validation and test may take; each is looked at about so often, validation in three steps of a run.
JUDGING, LOOKS = 0.25, {"validation": 3, "test": 1}
# What the lexical head may take, and its seconds for each product and tag, or product and number of a code: 75 s for
# 7,600 x 551 and 51 s for 24,000 x 512 (`recipes/lab/benchmark_scale.py --words 7600 550 --words 24000 2700`).
LEXICAL, PER_TAG, PER_CODE = 0.15, 2e-5, 4e-6
SMALL = 2000  # so many products of a split are always looked at
MEASURED, WARM_UP = 8, 2  # batches
RARE = 20  # products with a tag of no more training products than this are in every sample


@dataclass(frozen=True)
class Sample:
    """A function: record -> whether it is in a sample of so large a share, always the same one."""

    share: float
    rare: frozenset[tuple[str, str]] = frozenset()  # (attribute, tag)

    def __call__(self, record: dict) -> bool:
        return hash_draw(f"sample {record['id']}") < self.share or any(
            (name, tag) in self.rare for name, tags in record["tags"].items() for tag in tags or ())


@dataclass
class Plan:
    """What there is time for."""

    shares: dict[str, float] = field(default_factory=dict)  # {split: share of its products that the towers look at}
    steps: dict[str, int] = field(default_factory=dict)  # {number of a phase that moves the towers: its steps}


def fit_to_budget(run: RunContext, batches: Batches) -> None:
    """Puts a sample in the place of a split that the towers cannot look at within the budget, and limits the steps of
    phases that move them, in place, and says so. A resumed run keeps its plan."""
    settings, data, path = run.settings, batches.data, run.checkpoints / "budget.json"
    moving = any(phase.moves_towers for phase in settings.phases)
    if settings.budget is None or not settings.phases or run.accelerator.num_processes > 1:
        return
    if run.resumable and path.exists():
        plan = Plan(**json.loads(path.read_text(encoding="utf-8")))
    elif data.rows <= SMALL and not moving:
        plan = Plan()
    else:
        plan = affordable(run, batches)
        with whole_file(path) as waiting:
            waiting.write_text(json.dumps(asdict(plan)), encoding="utf-8")
    for number, steps in plan.steps.items():
        phase = settings.phases[int(number)]
        settings.phases[int(number)] = replace(phase, max_steps=steps)
        run.log.say(f"budget of {settings.budget:g} minutes: phase {int(number) + 1}, {phase.name}, ends after "
                    f"{steps:,} steps")
    parts = {split: Part(split, Sample(share, rare_tags(data) if split == "train" else frozenset()))
             for split, share in plan.shares.items() if share < 1}
    if parts:
        data.catalog = PartialCatalog(data.catalog, parts)
        run.log.say(f"budget of {settings.budget:g} minutes: the encoders look at " + ", ".join(
            f"{part.keep.share:.0%} of {split}" for split, part in parts.items())
            + f"; products with a tag of up to {RARE} are all in; hf_tagger evaluate scores the whole test split")


def rare_tags(data: TrainingData) -> frozenset[tuple[str, str]]:
    """(attribute, tag) of tags with at most `RARE` training products."""
    return frozenset((entry["name"], tag) for entry in data.vocabulary.attributes
                     for tag, count in zip(entry["tags"], entry["counts"], strict=True) if count <= RARE)


def lexical_sample(run: RunContext, data: TrainingData) -> Callable[[dict], bool]:
    """A function: record -> whether the lexical head has the time to read it. Says so where it has not for all."""
    settings, attributes = run.settings, data.vocabulary.attributes
    if settings.budget is None or data.rows <= SMALL:
        return lambda record: True
    coded = coded_attributes(attributes, settings.model.lexical)
    seconds = sum(PER_CODE * coded[entry["name"]] if entry["name"] in coded else PER_TAG * (len(entry["tags"]) + 1)
                  for entry in attributes)
    share = max(60 * settings.budget * LEXICAL / seconds, SMALL) / data.rows
    if share >= 1:
        return lambda record: True
    run.log.say(f"budget of {settings.budget:g} minutes: the lexical head reads {share:.0%} of train; products with a "
                f"tag of up to {RARE} are all in")
    return Sample(share, rare_tags(data))


def affordable(run: RunContext, batches: Batches) -> Plan:
    with run.log.step("speed of the encoders") as step:
        seconds = seconds_per_product(run, batches)
        step.result = f"{1 / seconds:.0f} products a second"
    settings, data = run.settings, batches.data
    left = max(60 * settings.budget * LOOKING - (time.monotonic() - run.started), 0.0)
    moving = {number: phase for number, phase in enumerate(settings.phases) if phase.moves_towers}
    steps = {}
    for number, phase in moving.items():
        size = (phase.batch_size or settings.training.loader.batch_size) * settings.training.gradient_accumulation
        wanted = min(phase.epochs * math.ceil(data.rows / size), phase.max_steps or math.inf)
        most = max(1, int(left * MOVING / len(moving) / (STEP * size * seconds)))
        if most < wanted:
            steps[str(number)] = most
    return Plan(_shares(settings, data, seconds, left * (1 - MOVING) if moving else left), steps)


def _shares(settings: RunSettings, data: TrainingData, seconds: float, left: float) -> dict[str, float]:
    """{split: share of its products that there is time for}, with so many seconds left and for each product."""
    evaluated = {split: LOOKS[kind] for kind, split in (("validation", settings.evaluation.validation),
                                                        ("test", settings.evaluation.split))
                 if split in data.catalog.splits}
    products = {"train": data.rows} | {split: sum(1 for _ in data.records(split)) for split in evaluated}
    products = {split: count for split, count in products.items() if count}
    # Beside the views, texts are read once more without the words of their tags.
    looks = {"train": max(phase.cached_views for phase in settings.phases) + (settings.model.text_backbone is not None)}
    wanted = {split: (looks | evaluated)[split] * count * seconds for split, count in products.items()}
    if sum(wanted.values()) <= left:
        return {}
    judged = {split: wanted[split] for split in wanted if split != "train"}
    judging = min(sum(judged.values()), JUDGING * left)
    allowed = {"train": left - judging} | {split: judging * each / sum(judged.values())
                                           for split, each in judged.items()}
    return {split: round(min(1.0, max(allowed[split] / max(wanted[split], 1e-9), SMALL / count)), 4)
            for split, count in products.items()}


def seconds_per_product(run: RunContext, batches: Batches) -> float:
    """Of the towers, on the first products of the training split as they are."""
    started, products = time.perf_counter(), 0
    with run.accelerator.autocast():
        for number, (batch, _, _) in enumerate(embeddings_of(batches.model, islice(batches.view(0), MEASURED)), 1):
            products += len(batch["ids"])
            if number == WARM_UP:
                started, products = time.perf_counter(), 0
    return (time.perf_counter() - started) / max(products, 1)
