"""Processes that are killed, or whose disk is full, at a moment that was drawn."""

import fcntl
import importlib
import io
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.processes import ROOT, as_rank, as_started_by_hand, forks, free_port

CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.symlink", "os.chmod")
KILLED = (-signal.SIGKILL, -signal.SIGALRM)
FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Victim:
    """A process that runs `target(*arguments)` and dies when it is about to change a file under `folder` for the
    `change`-th time, or `delay` seconds later, amid whatever it writes then; or after so many `seconds`. With
    `file_bytes` it lives on, but its disk is full: from then on no file takes more bytes.

    Args:
        target: a function of a module, or the name of a recipe.
        context: of multiprocessing; default: `forks`.
    """

    def __init__(self, target: Callable | str, *arguments, folder: Path, change: int | None = None,
                 delay: float = 0.0, seconds: float | None = None, file_bytes: int | None = None,
                 environment: dict | None = None, context=None):
        context = context or forks()
        rank = f".{environment['RANK']}" if "RANK" in (environment or {}) else ""
        self.seconds, self._said = seconds, b""
        log = Path(f"{folder}{rank}.log")
        self._log = _pipe(log)
        self._changes = context.RawValue("q", 0)
        self.process = context.Process(target=_live, args=(target, arguments, folder, log, self._changes, change,
                                                           delay, file_bytes, environment or {}))
        self.process.start()

    @property
    def changes(self) -> int:
        """How often it changed a file."""
        return self._changes.value

    @property
    def errors(self) -> str:
        """What it has printed so far."""
        self._said += self._log.read() or b""
        return self._said.decode()

    def end(self, patience: float = 240) -> int:
        """Its exit status; one of `KILLED` where it was. Fails where it goes on for longer than `patience` seconds."""
        self.process.join(self.seconds if self.seconds is not None else patience)
        alive = self.process.exitcode is None
        if alive:
            self.process.kill()
            self.process.join()
        assert not alive or self.seconds is not None, f"still alive after {patience} s: {self.errors[-3000:]}"
        return self.process.exitcode


def pair(*given, folder: Path) -> list[Victim]:
    """Two processes that share a recipe's work."""
    port = free_port()
    return [Victim(*given, folder=folder, environment=as_rank(rank, 2, port)) for rank in (0, 1)]


def kill_one(runs: list[Victim], change: int, rank: int) -> Victim:
    """Kills one of a `pair` when the first has changed files so many times; returns the other."""
    while runs[0].changes < change and runs[0].process.is_alive():
        time.sleep(0.002)
    runs[rank].process.kill()
    assert runs[rank].end() == -signal.SIGKILL, runs[rank].errors
    return runs[1 - rank]


def _pipe(path: Path) -> io.FileIO:
    """A pipe that a process may print a megabyte to: its log has room on a full disk."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    reading = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)
    fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, 2**20)
    return reading


def _live(target, arguments, folder, log, changes, change, delay, file_bytes, environment):
    as_started_by_hand(log, log)
    # Those of before know a file in which one can seek, or that takes no more on a full disk.
    sys.stdout, sys.stderr = (open(number, "w", buffering=1, closefd=False) for number in (1, 2))
    os.environ |= environment
    os.chdir(ROOT)
    if isinstance(target, str):
        target, arguments = importlib.import_module(f"recipes.{target}").main, ([*map(str, arguments)],)

    def fall():
        if file_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        elif delay:  # nobody handles the alarm, not even code that Python waits for
            signal.setitimer(signal.ITIMER_REAL, delay)
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(_counting(str(folder), changes, change, fall))
    sys.exit(target(*arguments))


def _counting(folder: str, changes, last: int | None, fall: Callable):
    def hook(event, arguments):
        if event != "open" and event not in CHANGES:
            return
        if event == "open" and not (arguments[2] or 0) & FLAGS:
            return
        if isinstance(arguments[0], int) or not os.fsdecode(arguments[0]).startswith(folder):
            return
        changes.value += 1
        if changes.value == last:
            fall()

    return hook


def files_of(folder: Path, *but: str) -> dict[str, bytes]:
    """{path in the folder: content} of its files, without those below a name of `but`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and not set(but) & set(path.relative_to(folder).parts)}
