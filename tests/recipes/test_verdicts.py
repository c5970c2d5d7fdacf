"""Verdicts out of one store and into another, by the command."""

import pytest

pytest.importorskip("sqlalchemy")

from hf_tagger.feedback.store import FeedbackStore  # noqa: E402
from hf_tagger.feedback.verdicts import Verdict  # noqa: E402
from recipes import verdicts  # noqa: E402


def test_verdicts_go_from_one_store_to_another_once(tmp_path, postgres_url, capsys):
    given = [Verdict(f"P{number}", "f", "colour", "Red", "accept", "ana", "v1", score=0.5) for number in range(3)]
    with FeedbackStore(tmp_path / "feedback.db") as store:
        store.add(given)
    file = str(tmp_path / "verdicts.parquet")
    assert verdicts.main([str(tmp_path / "feedback.db"), "--export", file]) == 0
    for new in (3, 0):
        assert verdicts.main([postgres_url, "--import", file]) == 0
        assert f"3 verdicts in {file}: {new} are new to postgresql" in capsys.readouterr().out
    with FeedbackStore(postgres_url) as store:
        assert store.verdicts() == given


@pytest.mark.parametrize(("arguments", "message"), [
    (["none.db", "--export", "out.parquet"], "there is no store none.db"),
    (["some.db", "--import", "none.parquet"], "there is no file none.parquet"),
    (["some.db", "--import", "text.parquet"], "text.parquet cannot be read"),
])
def test_what_does_not_fit_is_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.parquet").write_text("text")
    assert verdicts.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "out.parquet").exists() and not (tmp_path / "none.db").exists()
