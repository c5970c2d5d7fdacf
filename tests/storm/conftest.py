"""The storm: what attackers, accidents and full disks do, drawn by a seed, bounded, on this machine's loopback alone.

    pytest tests/storm                                      # the short form, a part of every test run
    pytest tests/storm --storm long -n 0 --storm-report model_cards/reliability.md

Every test counts what it tried and what held; the table is printed at the end, and written by `--storm-report`. Another
`--storm-seed` draws other moments, rows and requests.
"""

import os
import platform
import random
import time
from collections import defaultdict
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.storm.victims import KILLED, Victim

STARTED = time.time()


def pytest_addoption(parser):
    parser.addoption("--storm", choices=("short", "long"), default="short", help="how much is tried")
    parser.addoption("--storm-seed", type=int, default=0, help="what is drawn")
    parser.addoption("--storm-report", type=Path, metavar="FILE", help="where the counts are written")


def pytest_configure(config):
    config.addinivalue_line("markers", "storm: tries what attackers, accidents and full disks do (tests/storm)")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.storm)


class Storm:
    """Draws what a test tries, and counts."""

    def __init__(self, config, name: str):
        self.long = config.getoption("storm", "short") == "long"
        self.random = random.Random(f"{config.getoption('storm_seed', 0)} {name}")
        self.counts = defaultdict(lambda: [0, 0])
        self.notes = {}

    def full_disk(self, changes: int, largest: int) -> dict:
        """When the disk of a `Victim` that changes files so many times is full."""
        room = int(largest ** self.random.random())
        return {"change": self.random.randint(1, changes), "file_bytes": room}

    def ends(self, other: Victim) -> None:
        """Where one of two processes was killed, the other ends with an error, within a minute."""
        killed = time.monotonic()
        assert other.end(60) not in (0, *KILLED), other.errors
        self.most("seconds until the other of two processes ended", time.monotonic() - killed)

    def most(self, what: str, value: float) -> None:
        self.notes[what] = max(value, self.notes.get(what, 0))

    def rounds(self, short: int, long: int) -> int:
        return long if self.long else short

    def moment(self, changes: int, first: int = 1) -> dict:
        """When a `Victim` that changes files so many times is killed, not before the `first` change."""
        if self.random.random() < 0.2:
            return {"seconds": self.random.uniform(0, 4)}
        # While a file is being written, too: there is no change of files to be seen in it.
        delay = self.random.choice([0.0, self.random.uniform(0, 0.01)])
        return {"change": self.random.randint(first, changes), "delay": delay}

    @contextmanager
    def trial(self, what: str, count: int = 1):
        """`count` of what is tried: they are lost where the block raises."""
        self.counts[what][0] += count
        yield
        self.counts[what][1] += count

    def held(self, what: str, count: int) -> None:
        with self.trial(what, count):
            pass


@pytest.fixture
def storm(request):
    found = Storm(request.config, request.node.nodeid)
    yield found
    # Reports take it to the process that prints.
    request.node.user_properties += [("storm", (what, *counts)) for what, counts in found.counts.items()]
    request.node.user_properties += [("storm_most", each) for each in found.notes.items()]


def pytest_terminal_summary(terminalreporter, config):
    reports = [report for reports in terminalreporter.stats.values() for report in reports
               if getattr(report, "when", None) == "teardown"]
    said = [each for report in reports for each in report.user_properties]
    counts, notes = defaultdict(lambda: [0, 0]), {}
    for what, tried, held in (value for name, value in said if name == "storm"):
        counts[what] = [counts[what][0] + tried, counts[what][1] + held]
    for what, value in (value for name, value in said if name == "storm_most"):
        notes[what] = max(value, notes.get(what, 0))
    if not counts:
        return
    table = ["| what | tried | held | lost |", "|---|---:|---:|---:|"]
    table += [f"| {what} | {tried:,} | {held:,} | {tried - held:,} |" for what, (tried, held) in sorted(counts.items())]
    notes = [f"- {what}: {value:.3g}" for what, value in sorted(notes.items())]
    terminalreporter.section("storm")
    terminalreporter.write_line("\n".join([*table, *notes]))
    if (path := config.getoption("storm_report", None)) is not None:
        path.write_text("\n".join([*_head(config), *table, "", *notes]).rstrip() + "\n", encoding="utf-8")


def _head(config) -> list[str]:
    form, seed = config.getoption("storm"), config.getoption("storm_seed")
    return [
        "# What the storm tried, and what held", "",
        "Written by", "", f"    pytest tests/storm --storm {form} -n 0 --storm-report model_cards/reliability.md", "",
        f"The {form} form, seed {seed}: {(time.time() - STARTED) / 60:.0f} minutes on {os.cpu_count()} cores "
        f"({platform.machine()}, {platform.system()}), {time.strftime('%B %Y')}; `--storm long` tries about ten times "
        "as much as `--storm short`. Lost is what did not hold, in any respect that tests/storm names. A process was "
        "killed at the n-th time that it changed a file, up to 10 ms later, or after some seconds; a disk was full "
        "from the n-th time on (RLIMIT_FSIZE); the server could take 2 GB of addresses (RLIMIT_AS). Moments, rows and "
        "requests were drawn.",
        "",
    ]
