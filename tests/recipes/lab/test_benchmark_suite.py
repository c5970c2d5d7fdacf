"""What the suite's page says, and how its programs are measured."""

import pytest

from hf_tagger.catalog.strict import ConfigError
from recipes.lab.benchmark_suite import kept, measured, report


def scored(**attributes):
    """{attribute: (accuracy, macro-F1)} as a program's result."""
    return {"cpu_seconds": 90.0, "peak_mb": 800, "scores": {
        name: {"accuracy": {"value": accuracy}, "macro_f1": {"value": macro, "low": macro - 0.1, "high": macro + 0.1}}
        for name, (accuracy, macro) in attributes.items()}}


MACHINE = {"cpu": "a machine", "cores": 2, "load_average": 0.1}
FOUND = {"machine": MACHINE, "overrides": ["--budget", "60"], "catalogues": {"shop": {
    "tfidf": scored(colour=(0.8, 0.6), size=(0.5, 0.5)), "knn": scored(colour=(0.7, 0.65), size=(0.4, 0.3)),
    "defaults 0": scored(colour=(0.9, 0.7), size=(0.44, 0.46)),
    "defaults 1": scored(colour=(0.92, 0.74), size=(0.46, 0.44))}}}  # fmt: skip


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


def test_a_page_of_unfinished_programs_can_be_read():
    catalogues = {"shop": {"tfidf": FOUND["catalogues"]["shop"]["tfidf"]}}
    page = report(FOUND | {"catalogues": catalogues})
    assert "| colour | – | .800 / .600 [.500, .700] |" in page and "Nothing to compare yet." in page


def test_scores_are_those_of_the_attributes_alone():
    plain = {"attributes": {"colour": {"accuracy": {"value": 0.5}, "macro_f1": {"value": 0.4}, "map": {"value": 1}}}}
    assert kept(plain) == {"colour": {"accuracy": {"value": 0.5}, "macro_f1": {"value": 0.4}}}


def test_a_program_is_measured_from_outside_and_one_that_fails_ends_the_suite():
    spent = measured("configs")
    # A process begins with the peak of the one that started it, and a test's may be large.
    assert 0 < spent["cpu_seconds"] and 0 < spent["seconds"] and 5 < spent["peak_mb"]
    with pytest.raises(ConfigError, match="hf_tagger finetune nowhere.yaml failed"):
        measured("finetune", "nowhere.yaml")
