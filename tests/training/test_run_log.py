"""What a run says: to people at once and in a line, the rest to run.log."""

import json
import subprocess
import sys

import pytest

from hf_tagger.training.run_log import RunLog, duration


def test_a_step_is_one_line_for_people_and_its_details_are_kept(tmp_path, capsys):
    log = RunLog(tmp_path / "out" / "run.log")
    with log.step("calibration") as step:
        step.result, step.details = "log-loss 0.4 to 0.3", {"colour": {"log_loss_after": 0.3}}
    (line,) = capsys.readouterr().out.splitlines()
    assert line.split() == ["calibration", "0.0", "s", "log-loss", "0.4", "to", "0.3"]
    said, kept = (tmp_path / "out" / "run.log").read_text().splitlines()
    assert said.endswith(line)
    assert json.loads(kept[kept.index("{"):]) == {"calibration": {"colour": {"log_loss_after": 0.3}}}


def test_a_step_that_fails_says_nothing_of_a_result(tmp_path, capsys):
    log = RunLog(tmp_path / "run.log")
    with pytest.raises(ValueError, match="no rows"), log.step("catalogue"):
        raise ValueError("no rows")
    assert capsys.readouterr().out == "" and (tmp_path / "run.log").read_text() == ""


def test_of_several_processes_one_speaks(tmp_path, capsys):
    log = RunLog(tmp_path / "run.log", main=False)
    log.say("hello")
    log.keep({"a": 1})
    assert capsys.readouterr().out == "" and not (tmp_path / "run.log").exists()


def test_a_resumed_run_goes_on_with_its_log_and_a_new_one_does_not(tmp_path):
    for resume, lines in ((False, 1), (True, 2), (False, 1)):
        RunLog(tmp_path / "run.log", resume=resume).say("hello")
        assert len((tmp_path / "run.log").read_text().splitlines()) == lines


def test_progress_reaches_a_pipe_at_once_and_in_lines(tmp_path):
    script = """
import os, sys
from pathlib import Path
from hf_tagger.evaluation import progress
from hf_tagger.training.run_log import RunLog
progress.SECONDS = 0
log = RunLog(Path(sys.argv[1]))
for item in progress.progress_bar(range(3), desc="rows"):
    log.say(f"item {item}")
os._exit(0)  # what has not been flushed is lost
"""
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path / "run.log")], capture_output=True, text=True)
    assert result.stdout.splitlines() == ["item 0", "item 1", "item 2"]
    assert "\r" not in result.stderr
    assert [line.split("|")[0] for line in result.stderr.splitlines()][:2] == ["rows:   0%", "rows:  33%"]


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (9.96, "10.0 s"), (42, "42 s"), (600, "10 min"),
                                               (9000, "2.5 h")])
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text
