import json
from datetime import UTC, date, datetime, timedelta

import pytest

from hf_tagger.catalog.reading.source import SourceConfig
from hf_tagger.catalog.reading.stream import Catalog
from hf_tagger.catalog.schema import CatalogSchema
from hf_tagger.catalog.strict import ConfigError, build
from hf_tagger.feedback.proposals import CATALOGUE, Since, UnknownTags, approved, proposals
from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import UNDECIDED, fingerprint

ATTRIBUTES = [{"name": "colour", "kind": "single", "tags": ["Red", "Sage green"]},
              {"name": "uses", "kind": "multi", "tags": ["Outdoor"]}]  # fmt: skip
SCHEMA = {"id": "id", "text": "title", "keep": ["created"], "attributes": {"colour": {}, "uses": {"kind": "multi"}},
          "free_form": {"columns": {"words": {"format": "list"}}}}


@pytest.fixture
def store(tmp_path):
    with FeedbackStore(tmp_path / "feedback.db", ATTRIBUTES) as store:
        yield store


@pytest.fixture
def records(tmp_path):
    """Ten products of the last ten days: "sage greens" on 6, "Camping" on 4, "picnic" on 5, "once" on one."""
    path, today = tmp_path / "new.jsonl", datetime.now(UTC).date()
    rows = [{"id": str(number), "title": f"Thing {number}", "colour": "sage greens" if number < 6 else "Red",
             "uses": ["Outdoor", "Camping"] if number < 4 else ["Outdoor"],
             "words": ["picnic", "Red"] if number % 2 else ["once"] if number == 0 else [],
             "created": f"{today - timedelta(number)}T10:00:00Z" if number != 9 else None} for number in range(10)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    catalog = Catalog(build(SourceConfig, {"path": str(path)}, "source"), build(CatalogSchema, SCHEMA, "schema"))
    return list(catalog.records("train"))


def propose(store, records, least=4, since=None):
    unknown = UnknownTags(ATTRIBUTES, least, since)
    for record in records:
        unknown.add(record, fingerprint(record))
    unknown.propose(store, "1")
    return len(proposals(store, ATTRIBUTES))


def test_tags_of_enough_products_that_the_model_does_not_know_are_proposed_once(store, records):
    for _ in range(2):
        assert propose(store, records) == 3
    found = {(each.attribute, each.tag): (len(each.products), each.alike) for each in proposals(store, ATTRIBUTES)}
    assert found == {("colour", "sage greens"): (6, ["Sage green"]), ("uses", "Camping"): (4, []),
                     (UNDECIDED, "picnic"): (5, [])}  # fmt: skip
    assert {verdict.reviewer for verdict in store.verdicts()} == {CATALOGUE} and len(store.verdicts()) == 15
    store.rule("uses", "picnic", "approve", "ana")
    store.rule("uses", "Camping", "decline", "ana")
    assert approved(store, ATTRIBUTES) == {"uses": ["picnic"]}


def test_only_products_of_the_last_days_count(store, records):
    assert propose(store, records, since=Since.of("5", "created")) == 2
    assert {(each.tag, len(each.products)) for each in proposals(store, ATTRIBUTES)} == {("sage greens", 5),
                                                                                       ("Camping", 4)}  # fmt: skip


def test_days_that_are_none(store, records):
    assert propose(store, records, since=Since(0, "created")) == 0
    with pytest.raises(ConfigError, match="'soon' is no number of days"):
        Since.of("soon", "created")


def test_dates_come_as_cells_have_them(records):
    since, today = Since(1, "created"), datetime.now(UTC)
    for value in (today, today.date(), str(today.date()), f"{today:%Y-%m-%d %H:%M}"):
        assert {"kept": {"created": value}} in since
    assert {"kept": {"created": date(2001, 1, 1)}} not in since and {"kept": {"created": None}} not in since
    with pytest.raises(ConfigError, match="created is no column of dates.*'soon'"):
        {"kept": {"created": "soon"}} in since  # noqa: B015


def test_of_a_common_tag_some_products_are_kept(store, records, monkeypatch):
    monkeypatch.setattr("hf_tagger.feedback.proposals.MOST_PRODUCTS", 4)
    propose(store, records)
    assert {len(each.products) for each in proposals(store, ATTRIBUTES)} == {4}
