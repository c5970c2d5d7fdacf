import json
import os
import subprocess
import sys

import psutil
import pytest
import torch

from hf_tagger.evaluation.machine import describe_machine, in_fresh_process, resident_mb


def test_resident_memory_includes_child_processes():
    before = resident_mb()
    program = "held = bytearray(b'x') * (100 << 20); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        grown = resident_mb() - before
        child.communicate(b"\n")
    assert 100 < grown < 200
    assert abs(resident_mb() - before) < 50


def told():
    print("measuring")
    return os.getpid()


def test_a_fresh_process_is_another_one_that_prints_to_stderr(capfd):
    assert in_fresh_process(told) not in (os.getpid(), os.getppid())
    printed = capfd.readouterr()
    assert "measuring" in printed.err and not printed.out


def test_machine_is_plain_data_of_this_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 6}, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    machine = describe_machine()
    assert (machine["cores"], machine["threads"]) == (3, 2) and machine["cpu"]
    assert machine["memory_gb"] == pytest.approx(psutil.virtual_memory().total / 2**30, abs=0.06)
    assert json.loads(json.dumps(machine)) == machine
