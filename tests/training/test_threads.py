"""Threads on a CPU: who has been asked, and what a run under `accelerate launch` really computes with."""

import os
import subprocess
import sys

import pytest

from hf_tagger.training import threads

CORES = threads.available_cores()
SCRIPT = """
from hf_tagger.training.threads import set_cpu_threads
said = set_cpu_threads()
import torch
assert torch.get_num_threads() == said
print("threads:", said)
"""
LAUNCH = (sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "1", "--num_machines", "1",
          "--mixed_precision", "no", "--dynamo_backend", "no")  # fmt: skip


@pytest.fixture
def computed_with(tmp_path):
    """(command before the script, environment) -> threads of each of its processes."""
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)

    def run(*command, **environment):
        kept = {name: value for name, value in os.environ.items()
                if name != "OMP_NUM_THREADS" and not name.startswith(("ACCELERATE_", "TORCHELASTIC_"))}
        result = subprocess.run([*command, str(path)], env=kept | environment, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr[-2000:]
        return [int(line.removeprefix("threads: ")) for line in result.stdout.splitlines() if line[:8] == "threads:"]

    return run


@pytest.mark.parametrize(("command", "environment", "expected"), [
    pytest.param(LAUNCH, {}, CORES, id="launch"),
    pytest.param(LAUNCH, {"OMP_NUM_THREADS": "1"}, 1, id="launch, told"),
    pytest.param((*LAUNCH, "--num_cpu_threads_per_process", "1"), {}, 1, id="launch, told by its own option"),
])
def test_a_launchers_one_thread_is_nobodys_wish(computed_with, command, environment, expected):
    assert computed_with(*command, **environment) == [expected]


def test_processes_share_the_cores(computed_with):
    launch = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    assert computed_with(*launch) == [max(1, CORES // 2)] * 2


def test_what_the_settings_say_counts_most_and_then_what_a_person_has_said(monkeypatch):
    taken = []
    monkeypatch.setattr(threads.torch, "set_num_threads", taken.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert threads.set_cpu_threads(2) == 2 and threads.set_cpu_threads() == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")  # no launcher has started this process
    assert threads.set_cpu_threads() == 1
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert threads.set_cpu_threads() == CORES and taken == [2, 3, 1, CORES]
