import subprocess
import sys

from hf_tagger.evaluation.machine import describe_machine, resident_mb


def test_resident_memory_includes_child_processes():
    before = resident_mb()
    program = "held = bytearray(b'x') * (100 << 20); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        grown = resident_mb() - before
        child.communicate(b"\n")
    assert 100 < grown < 200
    assert abs(resident_mb() - before) < 50


def test_machine_is_plain_data_of_this_machine():
    machine = describe_machine()
    assert machine["cores"] >= 1 and machine["threads"] >= 1 and machine["cpu"]
    assert 0.5 < machine["memory_gb"] < 100_000 and machine["load_average"] >= 0
    assert machine["bf16_is_fast"] in (True, False)
