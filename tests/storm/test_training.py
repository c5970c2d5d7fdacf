"""Training that is killed and resumed, runs out of disk, or loses one of its processes."""

import pytest

from tests.csv_shop import write_csv_shop
from tests.shops import write_config
from tests.storm.victims import KILLED, Victim, files_of, kill_one, pair

SHOP = {"rows": 120, "picture_size": 32, "languages": ["en"], "missing_modality": 0.2}
# What says when and where, and what is no result.
TOLD = ("provenance.json", "training_config.yaml", "run.log", "README.md", "checkpoints", "catalog")


def config_of(folder):
    """A run with cached features, a phase that moves towers, and two products in quarantine."""
    catalog = write_csv_shop(folder / "shop", **SHOP)
    for path in sorted((folder / "shop" / "photos").iterdir())[:2]:
        path.write_bytes(path.read_bytes()[:200])
    return write_config(folder / "config.yaml", catalog | {"max_bad_fraction": 0.5},
                        model={"text_backbone": "scratch:gru"},
                        phases=[{"train": ["heads"], "cached_views": 2, "epochs": 2, "batch_size": 24}, {"epochs": 2}])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(configuration, folder, how often a file was changed) of a run that nothing befell."""
    folder = tmp_path_factory.mktemp("training")
    config = config_of(folder)
    run = Victim("finetune", config, "--output_dir", folder / "whole", folder=folder / "whole")
    assert run.end() == 0, run.errors
    return config, folder / "whole", run.changes


def same(folder, whole, half_done=False):
    """The folder holds what that of the undisturbed run does; of a run that is `half_done`, what there is is whole."""
    wanted, found = files_of(whole, *TOLD), files_of(folder, *TOLD)
    if half_done:
        found.pop("quarantine.jsonl", None)  # which grows line by line
        wanted = {name: content for name, content in wanted.items() if name in found}
    assert not [name for name, content in wanted.items() if found.get(name) != content]


def test_killed_at_any_moment_and_resumed_it_ends_with_the_same_weights(whole, storm, tmp_path):
    config, reference, changes = whole
    for number in range(storm.rounds(2, 16)):
        folder, first = tmp_path / str(number), changes * 4 // 5 if number % 2 else 1  # late: while the model is saved
        for resume in ([], *[["--resume"]] * storm.rounds(1, 4)):
            run = Victim("finetune", config, "--output_dir", folder, *resume, folder=folder,
                         **storm.moment(changes, first))  # fmt: skip
            status = run.end()
            if status == 0:
                break
            with storm.trial("training, killed"):
                assert status in KILLED, run.errors
                same(folder, reference, half_done=True)
        run = Victim("finetune", config, "--output_dir", folder, "--resume", folder=folder)
        with storm.trial("training, resumed to its end"):
            assert run.end() == 0, run.errors
            same(folder, reference)


def test_on_a_full_disk_it_ends_in_one_line_and_goes_on_when_there_is_room(whole, storm, tmp_path):
    config, reference, changes = whole
    largest = max(len(content) for content in files_of(reference).values())
    for number in range(storm.rounds(2, 12)):
        folder, full = tmp_path / str(number), storm.full_disk(changes, largest)
        run = Victim("finetune", config, "--output_dir", folder, folder=folder, **full)
        with storm.trial("training, disk full"):
            status = run.end()
            assert status in (0, 2) and "Traceback" not in run.errors, f"{full}: {run.errors}"
            same(folder, reference, half_done=status != 0)
            if status != 0:
                run = Victim("finetune", config, "--output_dir", folder, "--resume", folder=folder)
                assert run.end() == 0, f"{full}: {run.errors}"
                same(folder, reference)


def test_where_one_of_two_processes_dies_the_other_ends_with_an_error(whole, storm, tmp_path):
    config, _, changes = whole
    for number in range(storm.rounds(1, 6)):
        folder = tmp_path / str(number)
        given = ("finetune", config, "--output_dir", folder)
        with storm.trial("training by two processes, one killed"):
            other = kill_one(pair(*given, folder=folder), storm.random.randint(1, changes // 2), number % 2)
            storm.ends(other)
            if storm.long:
                assert [run.end() for run in pair(*given, "--resume", folder=folder)] == [0, 0]
