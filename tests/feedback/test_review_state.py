import math

import pyarrow.parquet as pq
import pytest

from hf_tagger.catalog.strict import ConfigError
from hf_tagger.feedback.agreement import agreement
from hf_tagger.feedback.exchange import export_verdicts, import_verdicts
from hf_tagger.feedback.proposals import approved, proposals
from hf_tagger.feedback.review_state import decided, settle
from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import UNDECIDED
from tests.tiny_tagger import ATTRIBUTES


def test_the_last_word_counts_and_a_withdrawn_one_does_not(say):
    settled = settle([say(), say(decision="reject"), say(tag="Blue"), say(tag="Blue", decision="withdraw")])
    assert settled.holds == {("P1", "colour", "Red"): False}


def test_the_majority_of_those_who_are_sure_settles_and_a_draw_does_not(say):
    verdicts = [say(), say(reviewer="ben"), say(reviewer="cy", decision="reject"),
                say(reviewer="di", decision="unsure"), say(tag="Blue", decision="add"),
                say(tag="Blue", decision="reject", reviewer="ben")]
    settled = settle(verdicts)
    assert settled.holds == {("P1", "colour", "Red"): True}
    assert settled.disputed == [("P1", "colour", "Blue")]


def test_feedback_on_a_product_that_changed_is_kept_and_marked_stale(store, say):
    changed, same, gone = say("P1"), say("P2"), say("P3")
    store.add([changed, same, gone])
    settled = settle(store.verdicts(), {"P1": "f2", "P2": "f1"})
    assert settled.holds == {("P2", "colour", "Red"): True}
    assert settled.stale == [changed, gone]
    assert store.verdicts() == [changed, same, gone]


def test_kappa_as_computed_by_hand(say):
    # Of 10 tags both accept 4 and reject 3: agreement 0.7; by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5, so kappa is 0.4.
    answers = [(True, True)] * 4 + [(False, False)] * 3 + [(True, False)] * 1 + [(False, True)] * 2
    verdicts = []
    for number, (ana, ben) in enumerate(answers):
        verdicts.append(say(f"P{number}", decision="accept" if ana else "reject"))
        verdicts.append(say(f"P{number}", decision="accept" if ben else "reject", reviewer="ben"))
    verdicts += [say("P90"), say("P91", decision="unsure"), say("P91", reviewer="ben")]
    (found,) = agreement(verdicts)
    assert (found.reviewers, found.items) == (("ana", "ben"), 10)
    assert found.agreed == pytest.approx(0.7)
    assert found.kappa == pytest.approx(0.4)
    assert agreement(verdicts, "category") == []


def test_kappa_is_undefined_where_nobody_ever_said_no(say):
    (found,) = agreement([say(), say(reviewer="ben")])
    assert found.agreed == 1 and math.isnan(found.kappa)


def test_an_unknown_tag_becomes_a_proposal_then_a_tag(store, say):
    store.add([say("P1", "Teal", "add"), say("P2", " Teal", "add"), say("P1", "Sage", "add"), say("P1", "Red"),
               say("P3", "Gone", "add"), say("P3", "Gone", "withdraw")])
    assert [(found.tag, found.products, found.ruling) for found in proposals(store, ATTRIBUTES)] == [
        ("Teal", ["P1", "P2"], None), ("Sage", ["P1"], None)]
    assert approved(store, ATTRIBUTES) == {}
    store.rule("colour", "Teal", "approve", "ana")
    store.rule("colour", "Sage", "approve", "ana")
    store.rule("colour", "Sage", "decline", "ben")
    assert approved(store, ATTRIBUTES) == {"colour": ["Teal"]}
    grown = [ATTRIBUTES[0] | {"tags": ["Red", "Blue", "Teal"]}, *ATTRIBUTES[1:]]
    assert [found.tag for found in proposals(store, grown)] == ["Sage"]
    with pytest.raises(ValueError, match="not a ruling"):
        store.rule("colour", "Teal", "aprove", "ana")


def test_a_proposal_names_the_tags_that_it_may_be_another_spelling_of(store, say):
    store.add([say("P1", "Réds", "add"), say("P2", "Sages", "add"), say("P3", "Sage", "add"), say("P4", "Teal", "add")])
    assert {found.tag: found.alike for found in proposals(store, ATTRIBUTES)} == {
        "Réds": ["Red"], "Sages": ["Sage"], "Sage": ["Sages"], "Teal": []}


def test_a_tag_that_could_belong_to_several_attributes_waits_until_one_is_chosen(store, say):
    store.add([say("P1", "Sage", "add", attribute=UNDECIDED), say("P2", "Sage", "add"),
               say("P3", "Red", "add", attribute=UNDECIDED), say("P4", "Sage", "add", "ben", UNDECIDED)])
    settled = settle(store.verdicts())
    assert settled.holds == {("P2", "colour", "Sage"): True}
    assert settled.undecided == {("P1", "Sage"): True, ("P3", "Red"): True, ("P4", "Sage"): True}
    assert [(found.attribute, found.tag, found.products) for found in proposals(store, ATTRIBUTES)] == [
        (UNDECIDED, "Sage", ["P1", "P4"]), ("colour", "Sage", ["P2"])]
    with pytest.raises(ValueError, match="approve it for one of the model's attributes"):
        store.rule(UNDECIDED, "Sage", "approve", "ana")
    store.rule("colour", "Sage", "approve", "ana")
    assert [(found.attribute, found.products) for found in proposals(store, ATTRIBUTES)] == [
        ("colour", ["P1", "P2", "P4"])]
    assert approved(store, ATTRIBUTES) == {"colour": ["Sage"]}
    grown = [ATTRIBUTES[0] | {"tags": ["Red", "Blue", "Sage"]}, *ATTRIBUTES[1:]]
    settled = settle(decided(store.verdicts(), grown))
    assert settled.undecided == {}
    assert settled.holds == {(product, "colour", tag): True for product, tag in
                             (("P1", "Sage"), ("P2", "Sage"), ("P3", "Red"), ("P4", "Sage"))}


def test_parquet_and_back(store, say, tmp_path):
    store.add([say(score=0.25), say("P2", decision="unsure", tag="Grün")])
    assert export_verdicts(store, tmp_path / "verdicts.parquet") == 2
    with FeedbackStore(tmp_path / "other.db") as other:
        other.add(store.verdicts()[:1])
        assert import_verdicts(other, tmp_path / "verdicts.parquet") == 2
        assert other.verdicts() == store.verdicts()


def test_a_file_that_does_not_fit_says_where(store, say, tmp_path):
    store.add([say(), say("P2")])
    path = tmp_path / "verdicts.parquet"
    export_verdicts(store, path)
    table = pq.read_table(path)
    pq.write_table(table.set_column(4, "decision", [["accept", "maybe"]]), path)
    with FeedbackStore(tmp_path / "other.db") as other:
        with pytest.raises(ConfigError, match="row 2: 'maybe' is not a decision"):
            import_verdicts(other, path)
        assert other.verdicts() == []
        pq.write_table(table.drop_columns("tag"), path)
        with pytest.raises(ConfigError, match="no column 'tag'"):
            import_verdicts(other, path)
        path.write_text("text")
        with pytest.raises(ConfigError, match="cannot be read"):
            import_verdicts(other, path)
