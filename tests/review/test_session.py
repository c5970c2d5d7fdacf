"""A reviewer's words, from the desk into the store and back."""

import sqlite3

import numpy as np
import pytest

from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import UNDECIDED
from hf_tagger.model.pipeline_tagger import ProductTaggingPipeline
from hf_tagger.review.queue import Filters
from hf_tagger.review.session import Session
from hf_tagger.review.views import bar_view, card_view, chips_of, product_view, progress_view
from tests.review.shop import make_desk
from tests.tiny_tagger import trained_tagger


@pytest.fixture
def session(desk):
    session = Session(reviewer="ana")
    desk.open(session, "P1")
    return session


def said(desk):
    return [(verdict.tag, verdict.decision) for verdict in desk.store.verdicts()]


def chip(desk, session, tag):
    return next(chip for chip in chips_of(desk, session) if chip.label == tag)


def test_a_verdict_says_who_what_and_what_was_shown(desk, session):
    desk.judge(session, "P1", "colour", "Red", "accept")
    (verdict,) = desk.store.verdicts()
    assert (verdict.product, verdict.attribute, verdict.reviewer, verdict.model_version) == (
        "P1", "colour", "ana", "tiny@1")
    assert verdict.fingerprint == desk.product(session).fingerprint
    assert verdict.score == pytest.approx(float(desk.predictions.of(0).scores[0]), abs=1e-5)
    assert chip(desk, session, "Red").mine == "accept"


def test_the_same_word_once_more_takes_it_back(desk, session):
    for decision in ("reject", "reject"):
        desk.judge(session, "P1", "colour", "Red", decision)
    assert said(desk) == [("Red", "reject"), ("Red", "withdraw")]
    assert chip(desk, session, "Red").mine == ""


def test_another_tag_of_a_single_attribute_rules_out_the_predicted_one_and_the_one_given_before(desk, session):
    desk.add(session, "P1", "blue")
    assert said(desk) == [("Blue", "add"), ("Red", "reject")]
    desk.add(session, "P1", "Teal", "colour")
    assert said(desk)[2:] == [("Teal", "add"), ("Blue", "reject")]
    desk.undo(session)
    assert [chip(desk, session, tag).mine for tag in ("Red", "Blue")] == ["reject", "add"]
    assert "Teal" not in [chip.label for chip in chips_of(desk, session)]
    desk.judge(session, "P1", "colour", "Red", "accept")
    assert [chip(desk, session, tag).mine for tag in ("Red", "Blue")] == ["accept", "reject"]


def test_what_was_said_at_once_is_taken_back_at_once_and_what_was_said_before_stands_again(desk, session):
    desk.judge(session, "P1", "colour", "Red", "reject")
    desk.accept_rest(session, "P1")
    assert desk.product(session).id != "P1"
    assert said(desk) == [("Red", "reject"), ("Mug", "accept")]
    desk.undo(session)
    assert desk.product(session).id == "P1" and "Mug" in session.notice
    desk.judge(session, "P1", "colour", "Red", "unsure")
    desk.undo(session)
    assert chip(desk, session, "Red").mine == "reject"
    desk.undo(session)
    assert chip(desk, session, "Red").mine == ""
    desk.undo(session)
    assert session.trouble == "There is nothing to take back."
    assert len(said(desk)) == len(desk.store.verdicts()) > 5  # nothing was ever deleted


def test_a_tag_is_added_where_it_belongs_and_an_unknown_one_is_proposed(desk, session):
    assert desk.suggest("re")[0] == ("Red", "colour", True)
    assert desk.suggest("of")[0] == ("Waterproof", "features", True)
    assert desk.suggest("RED") == [("Red", "colour", True)]
    assert desk.suggest("Teal") == [("Teal", name, False) for name in ("colour", "category", "features", UNDECIDED)]
    assert desk.suggest("  ") == []
    desk.add(session, "P1", "handmade")
    desk.add(session, "P1", " Sage ")
    assert session.notice.startswith("Sage is a proposed tag")
    verdict = desk.store.verdicts()[-1]
    assert (verdict.attribute, verdict.tag, verdict.score) == (UNDECIDED, "Sage", None)
    assert chip(desk, session, "Sage").proposed
    desk.add(session, "P1", "red")  # predicted already
    assert said(desk)[-1] == ("Red", "accept")
    desk.add(session, "P1", "   ")
    assert session.trouble == "Type a tag of at most 200 letters."


def test_a_tag_of_several_attributes_must_be_chosen(desk, session, tmp_path):
    model, processor = trained_tagger()
    model.config.attributes[1]["tags"][0] = "Red"
    desk = make_desk(ProductTaggingPipeline(model, processor=processor), tmp_path, desk.store)
    desk.add(session, "P1", "red")
    assert session.trouble == "red is a tag of colour, category: choose one from the list."
    assert said(desk) == []
    desk.add(session, "P1", "red", UNDECIDED)
    assert [(verdict.attribute, verdict.tag) for verdict in desk.store.verdicts()] == [(UNDECIDED, "red")]


def test_a_database_that_takes_nothing_is_told_and_nothing_is_shown_as_stored(desk, session, tmp_path):
    desk.judge(session, "P1", "colour", "Red", "accept")
    other = sqlite3.connect(tmp_path / "feedback.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    desk.judge(session, "P1", "category", "Mug", "accept")
    other.execute("ROLLBACK")
    assert "locked" in session.trouble and "Nothing that was stored before is lost" in bar_view(desk, session)
    assert [chip(desk, session, tag).mine for tag in ("Red", "Mug")] == ["accept", ""]
    with desk.store.engine.connect() as connection:  # the pool's one connection: the limit stays with it
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    for number in range(300):
        desk.add(session, "P1", f"{number} {'long' * 40}", "features")
        if session.trouble:
            break
    assert "disk is full" in session.trouble
    assert said(desk)[0] == ("Red", "accept") and len(said(desk)) == number + 1
    desk.judge(session, "P1", "category", "Mug", "nonsense")
    assert "not a decision" in session.trouble


def test_feedback_on_a_product_that_changed_is_kept_and_marked_stale(desk, session, tmp_path):
    desk.judge(session, "P1", "colour", "Red", "accept")
    assert desk.queue.progress("ana", Filters()) == (1, 4)
    (tmp_path / "P2.png").replace(tmp_path / "P1.png")
    desk.judge(session, "P1", "category", "Mug", "accept")
    assert "has changed since you were shown it" in session.notice
    assert said(desk) == [("Red", "accept"), ("Mug", "accept")]
    assert len({verdict.fingerprint for verdict in desk.store.verdicts()}) == 1
    assert chip(desk, session, "Mug").stale and "stale" in card_view(desk, session)
    assert desk.queue.progress("ana", Filters()) == (0, 4)
    assert desk.queue.next("ana", Filters(show="stale")) == 0
    desk.judge(session, "P1", "category", "Mug", "accept")  # of what it is now: no withdrawal
    assert said(desk)[-1] == ("Mug", "accept") and not chip(desk, session, "Mug").stale


def test_reviewers_do_not_see_each_others_answers_until_they_gave_their_own(desk, session):
    desk.judge(session, "P1", "colour", "Red", "accept")
    ben = Session(reviewer="ben")
    desk.open(ben, "P1")
    assert chip(desk, ben, "Red").others == {}
    desk.judge(ben, "P1", "colour", "Red", "reject")
    assert chip(desk, ben, "Red").others == {"yes": ["ana"]}
    ben.filters = Filters(show="disputed")
    assert desk.queue.next("cleo", ben.filters) == 0
    assert "ana, ben" in progress_view(desk)


def test_several_pages_on_one_store_see_each_others_verdicts(desk, session, tagger, tmp_path):
    with FeedbackStore(tmp_path / "feedback.db") as store:
        elsewhere = make_desk(tagger, tmp_path, store)
        other = Session(reviewer="ben")
        elsewhere.open(other, "P1")
        elsewhere.judge(other, "P1", "colour", "Red", "reject")
    desk.judge(session, "P1", "colour", "Red", "accept")
    assert chip(desk, session, "Red").others == {"no": ["ben"]}


def test_who_has_no_name_or_no_product_judges_nothing(desk):
    session = Session()
    desk.open(session)
    desk.accept_rest(session, desk.product(session).id)
    assert session.trouble.startswith("Say who you are first")
    desk.judge(Session(reviewer="ana"), "P1", "colour", "Red", "accept")
    assert said(desk) == []


def test_skipped_products_come_again_once_the_others_are_done(desk, session):
    desk.open(session)
    seen = [desk.product(session).id]
    for _ in range(4):
        desk.next(session)
        seen.append(desk.product(session).id)
    assert len(set(seen[:4])) == 4 and seen[4] == seen[0]
    desk.back(session)
    assert desk.product(session).id == seen[3]
    session.filters.language = "fr"
    desk.open(session)
    assert session.row is None and "No product passes" in product_view(desk, session)


def test_names_and_words_are_never_taken_for_markup(desk, session):
    session.reviewer = "<i>ana</i>"
    desk.add(session, "P1", "<img src=x onerror=alert(1)>", "features")
    page = card_view(desk, session) + bar_view(desk, session) + progress_view(desk)
    assert "<img src=x" not in page and "<i>ana" not in page and "&lt;img src=x" in page


def test_a_score_close_to_another_is_told_as_the_reason(desk, session):
    scores = desk.predictions.of(0).scores
    scores[:2] = 0.48, 0.45
    assert "close call: Red 0.48, Blue 0.45" in card_view(desk, session)
    assert np.isfinite(desk.queue.confidence(0, None))


def test_a_tag_that_nobody_could_have_meant_is_not_stored(desk, session):
    for act in (lambda: desk.judge(session, "P1", "colour", "x" * 10**6, "accept"),
                lambda: desk.add(session, "P1", "x" * 10**6, "colour")):
        act()
        assert "at most 200 letters" in session.trouble and desk.store.verdicts() == []
