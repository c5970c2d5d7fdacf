"""Writers of feedback that are killed, or run out of disk: what was acknowledged is kept, once."""

import signal
import time
from collections import Counter

from sqlalchemy import text

from hf_tagger.feedback.store import FeedbackStore
from hf_tagger.feedback.verdicts import Verdict
from tests.feedback.writers import Writer


def check(url, acknowledged):
    """Every acknowledged verdict is in the store, none twice; those that were on their way are there by threes."""
    with FeedbackStore(url) as store:
        kept = Counter((verdict.reviewer, verdict.product) for verdict in store.verdicts())
        with store.engine.connect() as connection:
            assert connection.execute(text("PRAGMA integrity_check")).scalar() == "ok"
    assert set(acknowledged) <= kept.keys()
    assert max(kept.values(), default=1) == 1
    assert all(count % 3 == 0 for count in Counter(reviewer for reviewer, _ in kept).values())
    return len(kept) - len(acknowledged)


def test_an_acknowledged_verdict_outlives_its_writer_and_other_writers_go_on(storm, tmp_path):
    for number in range(storm.rounds(3, 24)):
        url = tmp_path / f"{number}.db"
        killed, whole = Writer(url, "killed", 10**6, at_once=3), Writer(url, "whole", 201, at_once=3)
        acknowledged = [tuple(killed.lines.readline().split()) for _ in range(storm.random.randint(0, 100))]
        time.sleep(storm.random.uniform(0, 0.01))
        killed.process.kill()
        acknowledged += [tuple(line.split()) for line in (*killed.lines, *whole.lines)]
        killed.process.join()
        whole.process.join()
        assert (killed.process.exitcode, whole.process.exitcode) == (-signal.SIGKILL, 0)
        with storm.trial("writers of feedback, killed"), storm.trial("acknowledged verdicts", len(acknowledged)):
            assert check(url, acknowledged) in (0, 3)
            assert sum(reviewer == "whole" for reviewer, _ in acknowledged) == 201


def test_on_a_full_disk_a_writer_says_so_and_loses_nothing(storm, tmp_path):
    for number in range(storm.rounds(2, 16)):
        url = tmp_path / f"{number}.db"
        with FeedbackStore(url) as store:
            store.add(Verdict("P0", "f", "colour", "Red", "accept", "before", "1"))
        writer = Writer(url, "writer", 10**5, at_once=3, file_bytes=storm.random.randint(100_000, 400_000))
        *lines, said = writer.lines
        writer.process.join()
        acknowledged = [tuple(line.split()) for line in lines]
        with storm.trial("writers of feedback, disk full"), storm.trial("acknowledged verdicts", len(acknowledged)):
            assert writer.process.exitcode == 0 and "Nothing that was stored before is lost" in said
            with FeedbackStore(url) as store:
                kept = {(verdict.reviewer, verdict.product) for verdict in store.verdicts()}
            assert kept == {("before", "P0"), *acknowledged}
