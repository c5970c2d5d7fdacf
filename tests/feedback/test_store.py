import sqlite3
from collections import Counter

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from hf_tagger.feedback.store import FeedbackError, FeedbackStore
from hf_tagger.feedback.verdicts import Verdict, fingerprint
from tests.feedback.writers import Writer


def test_what_is_stored_comes_back_whole_and_in_order(store, say):
    given = [say(score=0.75), say(tag="Blue", decision="reject"), say("P2", decision="unsure", reviewer="ben")]
    store.add(given[0])
    store.add(given[1:])
    assert store.verdicts() == given
    assert [each for each in store.verdicts() if each.product == "P2"] == given[2:]
    with FeedbackStore(store.engine.url.database) as reopened:
        assert reopened.verdicts() == given


def test_what_others_stored_meanwhile_can_be_asked_for(store, say):
    store.add([say("P1"), say("P2")])
    found, number = store.verdicts_after(0)
    assert [verdict.product for verdict in found] == ["P1", "P2"]
    store.add(say("P3"))
    found, number = store.verdicts_after(number)
    assert [verdict.product for verdict in found] == ["P3"]
    assert store.verdicts_after(number) == ([], number)


def test_a_verdict_told_twice_counts_once(store, say):
    verdict = say()
    store.add(verdict)
    store.add([verdict, say("P2")])
    assert [found.product for found in store.verdicts()] == ["P1", "P2"]


def test_several_verdicts_are_stored_all_or_none(store, say):
    broken = say("P2")
    object.__setattr__(broken, "reviewer", None)
    with pytest.raises(FeedbackError, match="did not take this verdict"):
        store.add([say("P1"), broken])
    assert store.verdicts() == []


@pytest.mark.parametrize("change", ["UPDATE verdicts SET tag = 'Blue'", "DELETE FROM verdicts"])
def test_the_database_itself_refuses_changes(store, say, change):
    store.add(say())
    with pytest.raises(DBAPIError, match="append-only"), store.engine.begin() as connection:
        connection.execute(text(change))
    assert len(store.verdicts()) == 1


def test_a_locked_database_says_so_and_keeps_what_it_has(store, say):
    store.add(say())
    other = sqlite3.connect(store.engine.url.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(FeedbackError, match="another program.*try again.*Nothing that was stored before is lost"):
        store.add(say("P2"))
    assert len(store.verdicts()) == 1  # readers do not wait
    other.execute("ROLLBACK")
    store.add(say("P2"))
    assert len(store.verdicts()) == 2


def test_a_full_database_says_so_and_keeps_what_it_has(store, say):
    store.add(say())
    with store.engine.connect() as connection:  # the pool's one connection: the limit stays with it
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(FeedbackError, match="disk is full.*Make room"):
        store.add([say(f"P{number}") for number in range(2000)])
    assert len(store.verdicts()) == 1


def test_a_database_that_cannot_be_opened_says_so(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(FeedbackError, match="folder cannot be made"):
        FeedbackStore(tmp_path / "file" / "feedback.db")
    (tmp_path / "garbage.db").write_text("not a database" * 100)
    with pytest.raises(FeedbackError, match="not a database"):
        FeedbackStore(tmp_path / "garbage.db")
    with pytest.raises(FeedbackError, match="not in mysql"):
        FeedbackStore("mysql://somewhere/feedback")


REPLACEMENTS = [
    "INSERT OR REPLACE INTO verdicts SELECT number, key, product, fingerprint, attribute, 'Blue', decision, reviewer, "
    "model_version, score, at FROM verdicts",
    "INSERT OR REPLACE INTO verdicts SELECT number + 1, key, product, fingerprint, attribute, 'Blue', decision, "
    "reviewer, model_version, score, at FROM verdicts",
    "INSERT OR REPLACE INTO rulings SELECT number, attribute, 'Blue', ruling, reviewer, at FROM rulings",
]


@pytest.mark.parametrize("made_before", [False, True])
def test_nothing_is_replaced_either(store, say, made_before):
    store.add(say())
    store.rule("colour", "Teal", "approve", "ana")
    before = store.verdicts_after(0), store.rulings()
    other = sqlite3.connect(store.engine.url.database)  # without what this program sets for its own connections
    if made_before:
        for name in ("verdicts_no_replace", "verdicts_no_second_key", "rulings_no_replace"):
            other.execute(f"DROP TRIGGER {name}")
        FeedbackStore(store.engine.url.database)
    for change in REPLACEMENTS:
        try:
            with other:
                other.execute(change)
        except sqlite3.IntegrityError as error:
            assert "append-only" in str(error)
    other.close()
    assert (store.verdicts_after(0), store.rulings()) == before
    store.add(say("P2"))
    assert len(store.verdicts()) == 2


@pytest.mark.parametrize("url", [
    "postgresql://ana:s3cret@localhost:port/db", "postgresql://ana:s3cret@[::1/db", "postgresql:ana:s3cret@host/db",
    "nothing://ana:s3cret@host/db", "mysql://ana:s3cret@host/db", "postgresql://ana:s3cret@127.0.0.1:1/db",
    "postgresql://127.0.0.1:1/db?user=ana&password=s3cret", "postgresql://ana:s3cret@127.0.0.1:1/db?odd=1",
    "postgresql+asyncpg://ana:s3cret@127.0.0.1:1/db", "sqlite:///{folder}/a.db?timeout=long",
    "sqlite:///{folder}/a.db?odd=1", "sqlite:///{folder}/a.db?isolation_level=odd", "sqlite:feedback.db",
    "sqlite://", "sqlite:///:memory:", "sqlite:////no/such/folder/s3cret.db?mode=ro&uri=true",
])
def test_odd_urls_are_answered_with_an_error_that_tells_no_secret(tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    try:
        store = FeedbackStore(url.format(folder=tmp_path), patience=0.2)
    except FeedbackError as error:
        assert "s3cret@" not in str(error) and "=s3cret" not in str(error)
    else:
        store.add(Verdict("P1", "f", "colour", "Red", "accept", "ana", "1"))
        assert "s3cret" not in store.url and len(store.verdicts()) == 1
    assert not [path for path in tmp_path.rglob("*") if "s3cret" in path.name]


def test_bad_verdicts_are_refused(store, say):
    with pytest.raises(ValueError, match='Did you mean "accept"'):
        say(decision="acept")
    with pytest.raises(ValueError, match="score is a probability"):
        say(score=7)
    with pytest.raises(ValueError, match="needs a reviewer"):
        say(reviewer=" ")
    with pytest.raises(ValueError, match='no attribute \'color\'. Did you mean "colour"'):
        store.add(say(attribute="color"))


def test_the_fingerprint_follows_text_and_photos(tmp_path):
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"one")
    record = {"text": "Red mug", "images": [str(photo)]}
    shown = fingerprint(record)
    assert fingerprint(dict(record)) == shown
    assert fingerprint(record | {"text": "Blue mug"}) != shown
    photo.write_bytes(b"two")
    assert fingerprint(record) != shown


def test_postgresql_keeps_the_same_promises(postgres_url, say):
    with FeedbackStore(postgres_url) as store:
        writer = Writer(postgres_url, "other", 50)
        verdict = say(score=0.5)
        store.add([verdict, verdict])
        while writer.process.is_alive():
            store.add(say("P100"))
        assert len(writer.lines.readlines()) == 50
        assert Counter(found.reviewer for found in store.verdicts())["other"] == 50
        assert store.verdicts().count(verdict) == 1
        with store.engine.begin() as connection:  # as a store was made once
            connection.execute(text("DROP TRIGGER verdicts_no_truncate ON verdicts"))
    with FeedbackStore(postgres_url) as store:
        store.rule("colour", "Teal", "approve", "ana")
        kept = store.verdicts(), store.rulings()
        for change in ("DELETE FROM verdicts", "UPDATE verdicts SET tag = 'Blue'", "TRUNCATE verdicts",
                       "TRUNCATE rulings", "TRUNCATE verdicts, rulings RESTART IDENTITY CASCADE"):
            with pytest.raises(DBAPIError, match="append-only"), store.engine.begin() as connection:
                connection.execute(text(change))
        assert (store.verdicts(), store.rulings()) == kept and kept[1] == {("colour", "Teal"): "approve"}


def test_a_writer_need_not_own_the_postgresql_store(postgres_url, say):
    with FeedbackStore(postgres_url) as store, store.engine.begin() as connection:
        for statement in ("CREATE ROLE ben LOGIN", "GRANT SELECT, INSERT ON verdicts, rulings TO ben",
                          "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO ben"):
            connection.execute(text(statement))
    with FeedbackStore(postgres_url.replace("ana@", "ben@")) as store:
        store.add(say())
        assert len(store.verdicts()) == 1
        with pytest.raises(DBAPIError, match="denied"), store.engine.begin() as connection:
            connection.execute(text("TRUNCATE verdicts"))
