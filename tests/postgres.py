"""A PostgreSQL server of the tests' own, on a socket."""

import glob
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

# Debian keeps the server's programs off the path.
PLACES = os.pathsep.join([os.environ.get("PATH", ""), *sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)])


@contextmanager
def postgres_server() -> Iterator[str]:
    """The folder of its socket. Skips the test, with the reason, where no server can be started."""
    initdb, postgres = (shutil.which(name, path=PLACES) for name in ("initdb", "postgres"))
    if not initdb or not postgres:
        pytest.skip("no PostgreSQL server here: initdb and postgres are not on the path")
    # Not in tmp_path: the path of a socket must be short, and the server, who refuses to be root, must reach it.
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        user = {}
        if os.geteuid() == 0:
            user = {"user": "nobody"}
            shutil.chown(folder, "nobody")
        made = subprocess.run([initdb, "-D", f"{folder}/data", "-U", "ana", "-A", "trust", "-E", "UTF8", "--no-sync"],
                              capture_output=True, text=True, cwd=folder, **user)
        if made.returncode:
            pytest.skip(f"no PostgreSQL server can be made here: {made.stderr}")
        server = subprocess.Popen([postgres, "-D", f"{folder}/data", "-k", folder, "-c", "listen_addresses=",
                                   "-c", "fsync=off"], stderr=subprocess.PIPE, text=True, cwd=folder, **user)
        try:
            said = ""
            for line in server.stderr:
                said += line
                if "ready to accept connections" in line:
                    break
            else:
                pytest.skip(f"no PostgreSQL server can be started here: {said}")
            yield folder
        finally:
            server.send_signal(signal.SIGINT)
            server.communicate(timeout=60)
