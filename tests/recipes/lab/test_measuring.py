import subprocess
import sys

import pytest

from hf_tagger.catalog.strict import ConfigError
from measuring import HF_TAGGER, measured, resident_mb


def test_resident_memory_includes_child_processes():
    before = resident_mb()
    program = "held = bytearray(b'x') * (100 << 20); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        grown = resident_mb() - before
        child.communicate(b"\n")
    assert 100 < grown < 200
    assert abs(resident_mb() - before) < 50


def test_a_program_is_measured_from_outside_and_one_that_fails_is_an_error():
    spent = measured([*HF_TAGGER, "configs"])
    # A process begins with the peak of the one that started it, and a test's may be large.
    assert 0 < spent["cpu_seconds"] and 0 < spent["seconds"] and 5 < spent["peak_mb"]
    with pytest.raises(ConfigError, match="finetune nowhere.yaml failed"):
        measured([*HF_TAGGER, "finetune", "nowhere.yaml"])
