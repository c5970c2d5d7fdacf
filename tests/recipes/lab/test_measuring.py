import subprocess
import sys

from measuring import resident_mb


def test_resident_memory_includes_child_processes():
    before = resident_mb()
    program = "held = bytearray(b'x') * (100 << 20); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        grown = resident_mb() - before
        child.communicate(b"\n")
    assert 100 < grown < 200
    assert abs(resident_mb() - before) < 50
