import json
import os

import psutil
import pytest
import torch

from hf_tagger.evaluation.machine import describe_machine


def test_machine_is_plain_data_of_this_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5, 6}, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    machine = describe_machine()
    assert (machine["cores"], machine["threads"]) == (3, 2) and machine["cpu"]
    assert machine["memory_gb"] == pytest.approx(psutil.virtual_memory().total / 2**30, abs=0.06)
    assert json.loads(json.dumps(machine)) == machine
