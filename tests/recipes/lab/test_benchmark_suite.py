"""What the suite's page says, and that a suite can be stopped and goes on."""

import json
import sys
from functools import partial

import pytest
import yaml

from hf_tagger import cli
from recipes.lab import benchmark_suite
from recipes.lab.benchmark_suite import kept, shown_protocols
from recipes.lab.measuring import HF_TAGGER
from recipes.lab.suite_page import gains, plot, report
from tests.processes import as_started_by_hand, forks
from tests.shops import SCHEMA, write_splits


def scored(**attributes):
    """{attribute: (accuracy, macro-F1)} as a program's result."""
    return {"cpu_seconds": 90.0, "peak_mb": 800, "scores": {
        name: {"accuracy": {"value": accuracy}, "macro_f1": {"value": macro, "low": macro - 0.1, "high": macro + 0.1}}
        for name, (accuracy, macro) in attributes.items()}}


SPENT = {"seconds": 5.0, "cpu_seconds": 4.0, "peak_mb": 900}
MACHINE = {"cpu": "a machine", "cores": 2, "load_average": 0.1}
FOUND = {"machine": MACHINE, "overrides": ["--budget", "60"], "catalogues": {"shop": {
    "tfidf": scored(colour=(0.8, 0.6), size=(0.5, 0.5)), "knn": scored(colour=(0.7, 0.65), size=(0.4, 0.3)),
    "defaults 0": scored(colour=(0.9, 0.7), size=(0.44, 0.46)),
    "defaults 1": scored(colour=(0.92, 0.74), size=(0.46, 0.44))}}}  # fmt: skip


def with_peer():
    times = {"batch 1": {"torch": {"p50_ms": 20.0, "cpu_ms": 16.0}}}
    ours = {"rows_per_second": 50.0, "rows_per_cpu_second": 60.0, "model_seconds": 100.0, "useful_seconds": 100.0,
            "latency": times}
    theirs = {"rows_per_second": 4.0, "rows_per_cpu_second": 5.0, "model_seconds": 120.0, "useful_seconds": None,
              "latency": {"batch 1": {"autogluon": {"p50_ms": 400.0, "cpu_ms": 320.0}}}}
    peer = scored(colour=(0.95, 0.9)) | {"attribute": "colour", "bar": 0.55,
                                         "speed": {"defaults": ours, "autogluon": theirs}}
    return FOUND | {"catalogues": {"shop": FOUND["catalogues"]["shop"] | {"autogluon": peer}}}


def test_the_page_has_a_row_per_attribute_with_the_mean_of_the_seeds():
    lines = report(FOUND).splitlines()
    assert "## shop (0, 1)" in lines
    assert "| attribute | defaults | tfidf | knn |" in lines
    (colour,) = [line for line in lines if line.startswith("| colour")]
    assert colour.split(" | ")[1:3] == [".910 / .720 [.620, .820]", ".800 / .600 [.500, .700]"]
    assert "Minutes of CPU (peak MiB): defaults 0 1.5 (800), tfidf 1.5 (800), knn 1.5 (800)" in lines
    assert "`python recipes/lab/benchmark_suite.py --budget 60`, on a machine with 2 cores" in report(FOUND)


def test_the_sum_compares_with_the_best_baseline_of_each_attribute_and_the_best_single_one():
    accuracy, macro = report(FOUND).splitlines()[-2:]
    assert accuracy == ("- accuracy: above the best baseline of each on 1 of 2 attributes; more than a point below on "
                        "1: shop size (-5.0). Mean .680, of the best single baseline, tfidf, .650.")
    assert "above the best baseline of each on 1 of 2" in macro and "shop size (-5.0)" in macro


def test_a_peer_that_learns_some_attributes_counts_there_and_its_speed_is_shown_as_ratios():
    page = report(with_peer())
    assert "| size | .450 / .450 [.350, .550] | .500 / .500 [.400, .600] | .400 / .300 [.200, .400] | – |" in page
    assert "below on 2: shop colour (-4.0), shop size (-5.0)" in page and "single baseline, tfidf, .650" in page
    speed = page.partition("## Speed beside autogluon: shop, colour\n")[2].splitlines()[3:]
    assert speed == ["| training, rows/s | 50 | 4 | 12.5 × |", "| training, rows/s of CPU | 60 | 5 | 12 × |",
                     "| seconds to a model | 100 | 120 | 1.2 × |",
                     "| seconds to the first useful model (accuracy .550 on validation) | 100 | never | – |",
                     "| batch 1, ms, torch | 20 | 400 | 20 × |", "| batch 1, ms of CPU, torch | 16 | 320 | 20 × |"]


def test_a_page_of_unfinished_programs_can_be_read():
    catalogues = {"shop": {"tfidf": FOUND["catalogues"]["shop"]["tfidf"]}}
    page = report(FOUND | {"catalogues": catalogues})
    assert "| colour | – | .800 / .600 [.500, .700] |" in page and "Nothing to compare yet." in page


def test_scores_are_those_of_the_attributes_alone_under_every_protocol_that_is_shown():
    def plain(value):
        return {"attributes": {"colour": {"accuracy": {"value": value}, "macro_f1": {"value": 0.4}, "map": {}}}}

    found = kept({"all": plain(0.5), "masked": plain(0.3), "text only": plain(0.1)}, {"all": "", "masked": " (masked)"})
    assert found == {"colour": {"accuracy": {"value": 0.5}, "macro_f1": {"value": 0.4}},
                     "colour (masked)": {"accuracy": {"value": 0.3}, "macro_f1": {"value": 0.4}}}
    assert shown_protocols("recipes/configs/fashion.yaml", []) == {
        "title+image": "", "masked title+image": " (masked title+image)"}  # fmt: skip
    assert shown_protocols("recipes/lab/configs/food.yaml", []) == {"all": ""}


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """The folder of a suite that was stopped after its first baseline and went on."""
    folder = tmp_path_factory.mktemp("suite")
    config = {
        "catalog": {"source": {"files": write_splits(folder)}, "schema": SCHEMA},
        "model": {"text_backbone": "scratch:bert-tiny", "vision_backbone": "scratch:test_convnext",
                  "image_size": [32, 32], "hidden_size": 16},
        "lora": None, "phases": [{"epochs": 1}],
        "training": {"loader": {"batch_size": 16, "num_workers": 0}, "keep_freed_memory": False},
        "evaluation": {"protocols": {"all": {}, "titles": {"text": ["title"]}}},
    }  # fmt: skip
    (folder / "shop.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    arguments = [str(folder / "shop.yaml"), "--output_dir", str(folder / "out"), "--baselines", "majority", "tfidf"]
    (folder / "out").mkdir()
    stopped = {"machine": MACHINE, "overrides": [], "catalogues": {"shop": {"majority": scored(colour=(0.1, 0.1))}}}
    (folder / "out" / "suite.json").write_text(json.dumps(stopped))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark_suite, "measured", partial(in_a_fork, folder / "output"))
        assert benchmark_suite.main([*arguments, "--seeds", "0"]) == 0
    return folder / "out"


def in_a_fork(output, command):
    """As recipes/lab/measuring.py runs and measures a command, but without its start."""
    process = forks().Process(target=run, args=(command[len(HF_TAGGER):], output))
    process.start()
    process.join(240)
    assert process.exitcode == 0, output.with_suffix(".err").read_text()[-3000:]
    return SPENT


def run(arguments, output):
    as_started_by_hand(output)
    sys.argv[1:] = arguments
    sys.exit(cli.main())


def test_a_suite_goes_on_where_it_was_stopped_and_measures_each_program(suite):
    found = json.loads((suite / "suite.json").read_text())["catalogues"]["shop"]
    assert found["majority"] == scored(colour=(0.1, 0.1)), "what is there is not computed again"
    assert list(found) == ["majority", "tfidf", "defaults 0"]
    for name in ("tfidf", "defaults 0"):
        assert found[name]["scores"].keys() == {
            "colour", "category", "features", "colour (titles)", "category (titles)", "features (titles)"}  # fmt: skip
        assert found[name].items() >= SPENT.items()


def test_the_plot_shows_paired_differences_to_the_best_baseline(suite):
    found = json.loads((suite / "suite.json").read_text())
    gained, scores = found["gains"]["shop"], found["catalogues"]["shop"]
    assert gained.keys() == scores["tfidf"]["scores"].keys()
    for attribute, gain in gained.items():
        ours, theirs = (scores[name]["scores"][attribute]["macro_f1"] for name in ("defaults 0", "tfidf"))
        assert gain["over"] == "tfidf" and gain["value"] == pytest.approx(ours["value"] - theirs["value"], abs=1e-4)
        assert gain["low"] <= gain["value"] <= gain["high"]
    drawing = (suite / "suite.svg").read_text()
    assert drawing.startswith("<?xml") and "shop · colour (tfidf)" in drawing
    assert "(suite.svg)" in (suite / "suite.md").read_text()
    same = gains(suite / "shop", scores, {"all": "", "titles": " (titles)"})
    assert same == gained
    better = scores | {"majority": scored(colour=(0.1, 0.99))}
    found = gains(suite / "shop", better, {"all": ""})
    assert found.keys() == {"category", "features"}, "predictions of the best of colour are not there"
    plot({"shop": same}, suite / "again.svg")
    assert (suite / "again.svg").read_text() == drawing
