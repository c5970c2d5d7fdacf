from hf_tagger.catalog.reading.partial import Part, PartialCatalog
from tests.catalog.files import catalog, ids, products, records, refusals, shirts_schema, write_jsonl


def test_a_part_holds_the_products_it_keeps_and_other_splits_stay(tmp_path):
    whole = catalog({"files": {"train": str(write_jsonl(tmp_path / "a.jsonl", products(0, 6))),
                               "test": str(write_jsonl(tmp_path / "b.jsonl", products(6, 8)))}})  # fmt: skip
    partial = PartialCatalog(whole, {
        "train": Part("train", lambda record: record["tags"]["colour"] != ["Red"]),
        "held out": Part("train", lambda record: record["tags"]["colour"] == ["Red"])})  # fmt: skip
    assert partial.splits == ["train", "test", "held out"]
    assert ids(records(partial)) == ["00000", "00002", "00003", "00005"]
    assert ids(records(partial, "held out")) == ["00001", "00004"]
    assert ids(records(partial, "test")) == ["00006", "00007"]
    by_family = partial.with_text(["family"])
    assert [record["text"] for record in by_family.records("held out")] == ["f0", "f1"]


def test_every_row_of_a_part_goes_to_one_process(tmp_path):
    partial = PartialCatalog(catalog(write_jsonl(tmp_path / "a.jsonl", products(0, 30))),
                             {"train": Part("train", lambda record: record["group"] != "f1")})  # fmt: skip
    partial.schema.group = "family"
    shares = [ids(records(partial, rank=rank, world_size=2)) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == [f"{n:05d}" for n in range(30) if n // 4 != 1]


def test_refused_rows_come_with_a_part(tmp_path):
    rows = [*products(0, 2), {"id": "x", "title": "", "colour": "Red"}]
    partial = PartialCatalog(catalog(write_jsonl(tmp_path / "a.jsonl", rows), shirts_schema()),
                             {"train": Part("train", lambda record: False)})  # fmt: skip
    assert [refusal.id for refusal in refusals(partial)] == ["x"]
