"""Nothing is lost silently: refusals are written once, counted, and too many of them stop the run."""

import json

import pytest

from hf_tagger.catalog.quarantine import Quarantine, Refusal, TooManyBadRows


def refusal(number: int, reason: str = "no_content", **changes) -> Refusal:
    values = {"id": f"id{number}", "column": None, "detail": f"detail of {number}", "file": "shop.csv"} | changes
    return Refusal(number=number, reason=reason, **values)


def test_each_refusal_is_one_line(tmp_path):
    path = tmp_path / "run" / "quarantine.jsonl"
    quarantine = Quarantine(path)
    quarantine.add(refusal(3, column="title"))
    quarantine.add(refusal(4, "truncated", column="photo", fatal=False))
    quarantine.add(refusal(3, column="title"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"row": 3, "id": "id3", "file": "shop.csv", "column": "title", "reason": "no_content",
                        "detail": "detail of 3", "fatal": True, "photos_lost": False}  # fmt: skip
    assert [line["row"] for line in lines] == [3, 4]
    assert quarantine.counts == {"no_content": 1, "truncated": 1}
    assert "1 × no_content, as in shop.csv row 3 (id id3): detail of 3" in quarantine.summary()


def test_same_row_number_in_another_file_is_another_refusal():
    quarantine = Quarantine(None)
    quarantine.add(refusal(1))
    quarantine.add(refusal(1, file="other.csv"))
    quarantine.add(refusal(1, "malformed"))
    assert quarantine.counts == {"no_content": 2, "malformed": 1}


def test_too_many_lost_rows_stop_the_run_naming_the_commonest_reasons(tmp_path):
    quarantine = Quarantine(tmp_path / "quarantine.jsonl", max_bad_fraction=0.05)
    for number, reason in enumerate("abbbbccddd"):
        quarantine.add(refusal(number, reason))
    quarantine.saw(99)
    quarantine.check()
    quarantine.saw(1)
    with pytest.raises(TooManyBadRows) as stopped:
        quarantine.check()
    message = str(stopped.value)
    assert "10 of 100 rows" in message and "quarantine.jsonl" in message
    assert message.index("4 × b") < message.index("3 × d") < message.index("2 × c")
    assert "1 × a" not in message


def test_five_percent_is_allowed_and_a_small_catalogue_is_judged_at_its_end():
    quarantine = Quarantine(None)
    for number in range(5):
        quarantine.add(refusal(number))
    quarantine.saw(100)
    quarantine.check(final=True)
    small = Quarantine(None)
    small.add(refusal(1))
    small.saw(10)
    small.check()
    with pytest.raises(TooManyBadRows):
        small.check(final=True)
    Quarantine(None).check(final=True)


def test_refused_photos_do_not_count_as_lost_rows_while_others_are_left():
    quarantine = Quarantine(None)
    for number in range(50):
        quarantine.add(refusal(number, "truncated", fatal=False))
    quarantine.saw(100, photos=100)
    quarantine.check(final=True)
    assert quarantine.counts["truncated"] == 50


def test_products_that_lose_all_their_photos_have_a_limit_of_their_own():
    quarantine = Quarantine(None)
    quarantine.saw(1000, photos=110)
    for number in range(6):
        quarantine.add(refusal(number, "not_found", fatal=False, photos_lost=True))
    with pytest.raises(TooManyBadRows, match=r"6 of 110 products with photos lost them all .*\n  6 × not_found"):
        quarantine.check()
    assert quarantine.totals() == "1,000 rows: 1,000 used, 0 set aside, 6 lost their photos"


def test_a_second_epoch_and_a_second_photo_of_a_row_count_nothing_twice():
    quarantine = Quarantine(None)
    quarantine.saw(200, photos=200)
    for _ in range(3):
        for number in range(10):
            for reason in ("truncated", "not_found"):
                quarantine.add(refusal(number, reason, photos_lost=True))
    assert quarantine.counts == {"truncated": 10, "not_found": 10}
    assert (quarantine.rows_lost, quarantine.photos_lost) == (10, 10)
    assert quarantine.totals() == "200 rows: 190 used, 10 set aside, 10 lost their photos"
    quarantine.check(final=True)


def test_a_resumed_run_goes_on_with_its_file_a_new_one_starts_it_anew(tmp_path):
    path = tmp_path / "quarantine.jsonl"
    Quarantine(path).add(refusal(1))
    path.write_text(path.read_text() + '{"row": 2, "id": "the killed run wro')
    resumed = Quarantine(path, resume=True)
    resumed.add(refusal(1))
    resumed.add(refusal(2))
    assert resumed.counts == {"no_content": 2}
    assert [json.loads(line)["row"] for line in path.read_text().splitlines()] == [1, 2]
    Quarantine(path)
    assert path.read_text() == ""
