"""The training loop on a real model and batches made by hand. Killed processes: see tests/recipes/test_finetune.py."""

import json
import math
from functools import cache

import pytest
import torch
from accelerate import Accelerator

from hf_tagger.catalog.batching.collate import UNKNOWN
from hf_tagger.catalog.quarantine import Quarantine, Refusal
from hf_tagger.catalog.strict import ConfigError
from hf_tagger.training.arguments import PhaseSettings, TrainingSettings
from hf_tagger.training.build import set_trainable
from hf_tagger.training.checkpoint import kept_tensors, load_checkpoint, load_kept, newest_checkpoint, save_checkpoint
from hf_tagger.training.loop import NonFiniteLoss, TrainingLoop
from hf_tagger.training.losses import TaggingLoss
from hf_tagger.training.settings import LossSettings, OptimizerSettings
from tests.random_tagger import tagger
from tests.tiny_tagger import ATTRIBUTES, photo, tiny_model, tiny_processor

COUNTED = [{**entry, "counts": [4, 4], "none_count": 1} for entry in ATTRIBUTES]
pytestmark = pytest.mark.usefixtures("fresh_accelerate")  # an earlier test's bfloat16 must not be found

PRODUCTS = [
    ("red mug", [1, 0, 1, 0, 0, 0]),
    ("blue dress", [0, 1, 0, 1, -100, -100]),
    ("new red dress", [1, 0, 0, 1, 0, 0]),
    ("blue mug", [0, 1, 1, 0, 0, 0]),
    ("handmade red mug", [1, 0, 1, 0, 0, 1]),
    ("waterproof blue dress", [0, 1, 0, 1, 1, 0]),
    ("red", [1, 0, -100, -100, 0, 0]),
    ("new", [0, 0, 0, 0, 0, 0]),
]
TEXTS, LABELS = [text for text, _ in PRODUCTS], torch.tensor([row for _, row in PRODUCTS]).float()
PHASE = {"epochs": 2, "learning_rate": 0.05, "tower_learning_rate": 0.05, "scheduler": "constant", "warmup_ratio": 0.0}
SGD = OptimizerSettings(name="sgd", weight_decay=0.0, max_grad_norm=0.0)


class Batches:
    """What a loader gives, from lists of rows; [] is a batch whose every row was refused."""

    def __init__(self, *batches, photos=False):
        self.batches, self.photos = batches, photos

    def epoch(self, epoch=0, skip_batches=0):
        for rows in self.batches[skip_batches:]:
            batch = {"ids": [f"p{row}" for row in rows], "refusals": []}
            if rows:
                images = [[photo(seed=row)] for row in rows] if self.photos else None
                batch |= tiny_processor()(text=[TEXTS[row] for row in rows], images=images)
                batch["tag_labels"] = LABELS[rows]
            else:
                batch["refusals"] = [Refusal(9, "p9", "images", "truncated", "cut off")]
            yield batch


def start(folder, evaluate=None, optimizer=SGD, loss=None, **settings):
    quarantine = Quarantine(folder / "quarantine.jsonl", max_bad_fraction=1.0)
    settings = TrainingSettings(optimizer=optimizer, metric="f1", **settings)
    return TrainingLoop(Accelerator(cpu=True), settings, TaggingLoss(COUNTED, loss), evaluate, folder, quarantine)


def train(loop, model, loader, index=0, **phase):
    phase = PhaseSettings(**PHASE | phase)
    set_trainable(model, phase, lora=False, embeddings=True)
    loop.run_phase(index, phase, model, loader, len(loader.batches))
    return weights(model)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def differ(left, right):
    return [name for name in left if not torch.equal(left[name], right[name])]


def reader():
    return tiny_model(image=False)


def test_training_learns(tmp_path):
    model, loss = reader(), TaggingLoss(COUNTED)
    inputs = tiny_processor()(text=TEXTS)

    def now():
        with torch.no_grad():
            logits = model.eval()(**inputs).encoder_logits
        return float(loss(logits[:, :6], logits[:, 6:], LABELS).mean())

    before = now()
    loop = start(tmp_path, optimizer=OptimizerSettings(name="adamw"))
    train(loop, model, Batches([0, 1, 2, 3], [4, 5, 6, 7]), epochs=20)
    assert now() < 0.2 * before
    assert loop.progress.step == 40 and loop.progress.phase == 1


def test_accumulated_batches_equal_one_large_batch(tmp_path):
    """Whatever their sizes, and although some labels are unknown: every known label weighs the same."""
    ends = []
    for number, (accumulation, batches) in enumerate([
        (1, [[0, 1, 2, 3, 4, 5, 6], [7, 1]]),
        (2, [[0, 1, 2, 3, 4], [5, 6], [7], [1]]),
        (3, [[0, 1], [2, 3], [4, 5, 6], [7], [1]]),
    ]):  # fmt: skip
        folder = tmp_path / str(number)
        folder.mkdir()
        loop = start(folder, loss=LossSettings(), gradient_accumulation=accumulation)
        ends.append(train(loop, reader(), Batches(*batches)))
        assert loop.progress.step == 4
    assert differ(ends[0], weights(reader()))
    for end in ends[1:]:
        for name, tensor in ends[0].items():
            torch.testing.assert_close(end[name], tensor, rtol=1e-4, atol=1e-6)


def test_a_non_finite_loss_names_the_products_and_touches_no_weight(tmp_path):
    model = tiny_model()

    class Poisoned(Batches):
        def epoch(self, epoch=0, skip_batches=0):
            for number, batch in enumerate(super().epoch(epoch, skip_batches)):
                if number == 2:
                    batch["pixel_values"][0] = math.inf
                yield batch

    loop = start(tmp_path, gradient_accumulation=2, checkpoint_steps=1)
    with pytest.raises(NonFiniteLoss, match=r"loss nan.* at step 2, products \['p4', 'p5', 'p6'\].*last checkpoint"):
        train(loop, model, Poisoned([0, 1], [2, 3], [4, 5], [6], photos=True))
    tensors, progress = load_checkpoint(newest_checkpoint(tmp_path))
    assert progress["step"] == 1
    kept = kept_tensors(model, loop.changed)
    assert not [name for name, tensor in kept.items() if not torch.equal(tensor, tensors[f"model.{name}"])]


def test_gradients_are_clipped_to_the_norm_asked_for(tmp_path):
    model = reader()
    before = weights(model)
    clipped = OptimizerSettings(name="sgd", weight_decay=0.0, momentum=0.0, max_grad_norm=0.01)
    after = train(start(tmp_path, optimizer=clipped), model, Batches([0, 1, 2]), epochs=1, learning_rate=1.0,
                  tower_learning_rate=1.0)  # fmt: skip
    moved = sum((after[name].float() - before[name].float()).square().sum() for name in before).sqrt()
    assert float(moved) == pytest.approx(0.01, rel=1e-3)


def test_the_l1_term_shrinks_weights(tmp_path):
    ends = []
    for l1 in (0.0, 0.1):
        folder = tmp_path / str(l1)
        folder.mkdir()
        optimizer = OptimizerSettings(name="sgd", weight_decay=0.0, l1=l1)
        ends.append(train(start(folder, optimizer=optimizer), reader(), Batches([0, 1, 2, 3]), epochs=5))
    plain, sparse = (end["tag_head.embeddings.weight"].abs().sum() for end in ends)
    assert sparse < 0.8 * plain


def scripted(model_weights, *values):
    """An evaluation that gives these values in turn and notes the weights it saw."""
    values = iter(values)

    def evaluate(model):
        model_weights.append(weights(model))
        return {"f1": next(values), "colour/accuracy": 0.0}

    return evaluate


def test_training_stops_when_patience_is_used_up_and_keeps_the_best_weights(tmp_path):
    seen = []
    loop = start(tmp_path, scripted(seen, 0.5, 0.6, 0.6, 0.3), early_stopping=2)
    end = train(loop, reader(), Batches([0, 1, 2], [3, 4, 5]), epochs=10)
    assert len(seen) == 4 and not differ(end, seen[1]) and differ(end, seen[3])
    assert [entry["f1"] for entry in loop.progress.history] == [0.5, 0.6, 0.6, 0.3]
    assert [entry["step"] for entry in loop.progress.history] == [2, 4, 6, 8]


def test_validations_come_every_so_many_epochs_and_at_the_end(tmp_path):
    seen = []
    loop = start(tmp_path, scripted(seen, 0.1, 0.2, 0.3))
    train(loop, reader(), Batches([0, 1]), epochs=5, evaluate_every=2)
    assert [entry["step"] for entry in loop.progress.history] == [2, 4, 5]


def test_a_metric_that_cannot_be_measured_keeps_the_last_weights_of_its_own_phase(tmp_path):
    seen, model = [], reader()
    loop = start(tmp_path, scripted(seen, 0.9, 0.8, math.nan, math.nan, math.nan), early_stopping=2)
    first = train(loop, model, Batches([0, 1, 2]))
    assert not differ(first, seen[0])
    end = train(loop, model, Batches([3, 4, 5]), index=1, epochs=5)
    assert len(seen) == 4 and not differ(end, seen[3])


def test_an_unknown_metric_is_refused_with_those_that_are_measured(tmp_path):
    loop = start(tmp_path, lambda model: {"micro_f1": 1.0, "map": 0.5})
    with pytest.raises(ValueError, match="'f1' is not measured; known: map, micro_f1"):
        train(loop, reader(), Batches([0, 1]))


def test_max_steps_ends_a_phase_within_an_epoch(tmp_path):
    loop = start(tmp_path)
    train(loop, reader(), Batches([0], [1], [2], [3]), epochs=9, max_steps=6)
    assert loop.progress.step == 6


def test_rows_beyond_the_estimate_do_not_warm_the_schedule_up_again(tmp_path):
    model, rates = reader(), []

    class Noting(Batches):
        def epoch(self, epoch=0, skip_batches=0):
            for batch in super().epoch(epoch, skip_batches):
                yield batch
                rates.append(weights(model)["tag_head.bias.weight"])

    loader = Noting(*([0, 1, 2] for _ in range(12)))
    loop = start(tmp_path)
    phase = PhaseSettings(**PHASE | {"epochs": 1, "scheduler": "cosine"})
    set_trainable(model, phase, lora=False)
    loop.run_phase(0, phase, model, loader, 4)
    assert not torch.equal(rates[0], rates[3])
    assert torch.equal(rates[4], rates[11])


def test_refused_rows_end_no_epoch_and_are_written_down_once(tmp_path):
    loop = start(tmp_path)
    train(loop, reader(), Batches([0, 1], [], [2, 3], [], [4]))
    assert loop.progress.step == 6
    (line,) = (tmp_path / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["id"] == "p9"


def test_a_batch_of_which_nothing_is_known_changes_nothing(tmp_path, monkeypatch):
    model = reader()
    before = weights(model)
    monkeypatch.setitem(globals(), "LABELS", torch.full_like(LABELS, UNKNOWN))
    assert not differ(train(start(tmp_path), model, Batches([0, 1, 2])), before)


def test_a_process_without_rows_left_joins_in_with_a_batch_that_says_nothing(tmp_path):
    loop = start(tmp_path)
    idle = loop._idle_batch(Batches([], [0, 1], [2]))
    assert idle["input_ids"].shape[0] == 2 and (idle["tag_labels"] == UNKNOWN).all() and idle["ids"] == []
    with pytest.raises(RuntimeError, match="start fewer processes"):
        start(tmp_path)._idle_batch(Batches([]))


def test_frozen_towers_stay_exactly_as_they_are(tmp_path):
    model = tagger()  # its ResNet has BatchNorm, its BERT dropout
    before = weights(model)
    after = train(start(tmp_path), model, Batches([0, 1, 2, 3], photos=True), train=["heads"])
    changed = differ(before, after)
    assert changed and not [name for name in changed if "_tower." in name]
    after = train(start(tmp_path), model, Batches([0, 1, 2, 3], photos=True), train=["heads", "vision"])
    changed = differ(before, after)
    assert any("running_mean" in name for name in changed) and not [name for name in changed if "text_tower" in name]


def test_lexical_head_kernel_head_and_fusion_never_move_but_are_kept(tmp_path):
    model = tagger()
    before = weights(model)
    loop = start(tmp_path)
    changed = differ(before, train(loop, model, Batches([0, 1, 2, 3], photos=True), train=["heads"]))
    fitted_apart = ("lexical_head.", "kernel_head.", "logit_fusion.")
    assert not [name for name in changed if name.startswith(fitted_apart)]
    assert "encoder.fusion.layers.0.weight" in changed
    kept = kept_tensors(model, loop.changed)
    assert all(any(name.startswith(part) for name in before) for part in fitted_apart)
    assert {name for name in before if name.startswith((*fitted_apart, "encoder.fusion"))} <= set(kept)
    assert not [name for name in kept if "_tower." in name]


def test_a_checkpoint_of_another_configuration_is_refused():
    with pytest.raises(ValueError, match="belongs to another configuration: it holds tag_head.strange"):
        load_kept(reader(), {"tag_head.strange": torch.zeros(1)})


class Killed(Exception):
    pass


def killed(loop, after_saves, model, loader, **options):
    """Runs until the given number of checkpoints is written."""
    written = []

    def counting_save(*arguments):
        written.append(save_checkpoint(*arguments))
        if len(written) == after_saves:
            raise Killed

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr("hf_tagger.training.checkpoint.save_checkpoint", counting_save)
        train(loop, model, loader, **options)


THREE, COSINE = Batches([0, 1], [2, 3], [4, 5]), {"scheduler": "cosine", "warmup_ratio": 0.3}


def stepwise(folder, name):
    return start(folder, optimizer=OptimizerSettings(name=name), checkpoint_steps=1)


def both_phases(loop, model, **first):
    train(loop, model, THREE, 0, **COSINE, **first)
    return train(loop, model, THREE, 1, **COSINE)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """optimizer -> what `both_phases` ends with."""
    return cache(lambda name: both_phases(stepwise(tmp_path_factory.mktemp("whole"), name), reader()))


@pytest.mark.parametrize(("name", "saves"), [
    *(("adamw", saves) for saves in (2, 4, 8, 9, 11)),  # within an epoch, at its end, at the phase's, in the next phase
    ("sgd", 2), ("adagrad", 2)])  # fmt: skip
def test_a_resumed_run_ends_where_the_whole_one_does(whole, name, saves, tmp_path):
    loop, model = stepwise(tmp_path, name), reader()
    if saves > 9:
        train(loop, model, THREE, 0, **COSINE)
    killed(loop, saves if saves <= 9 else saves - 9, model, THREE, index=int(saves > 9), **COSINE)
    loop, model = stepwise(tmp_path, name), reader()
    assert loop.resume(model)
    assert not differ(both_phases(loop, model), whole(name))


def test_a_run_killed_when_patience_was_used_up_does_not_train_on(tmp_path):
    seen, loader = [], Batches([0, 1], [2, 3])
    killed(start(tmp_path, scripted(seen, 0.5, 0.4), early_stopping=1), 2, reader(), loader, epochs=5)
    model = reader()
    loop = start(tmp_path, scripted([], 0.9), early_stopping=1)
    loop.resume(model)
    assert not differ(train(loop, model, loader, epochs=5), seen[0])
    assert [entry["f1"] for entry in loop.progress.history] == [0.5, 0.4]


def test_weights_are_back_before_the_phases_are_gone_through(tmp_path):
    loop, model = start(tmp_path), reader()
    end = train(loop, model, Batches([0, 1, 2]))
    resumed, again = start(tmp_path), reader()
    assert resumed.resume(again) and not differ(weights(again), end)
    assert resumed.progress.phase == 1
    assert not start(tmp_path / "nothing").resume(reader())


def test_another_number_of_processes_cannot_resume(tmp_path):
    train(start(tmp_path), reader(), Batches([0, 1]))
    path = newest_checkpoint(tmp_path) / "progress.json"
    progress = json.loads(path.read_text())
    path.write_text(json.dumps(progress | {"random_state": progress["random_state"] * 2}))
    with pytest.raises(ConfigError, match="written by 2 processes, this run has 1"):
        start(tmp_path).resume(reader())
