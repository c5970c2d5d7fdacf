"""What a run prints, a line per step, and `run.log`, which keeps these lines and the details of each step."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from hf_tagger.model.urls import without_credentials


@dataclass
class Step:
    """The outcome of a step."""

    result: str = ""  # for people
    details: Any = None  # JSON data for run.log


class RunLog:
    """`main`: whether this process, of several, prints and writes; `resume`: append to the file of an earlier run."""

    def __init__(self, path: Path, main: bool = True, resume: bool = False):
        self.path, self.main = path, main
        if main:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("a" if resume else "w").close()

    def say(self, text: str) -> None:
        """Prints at once, also into a file or a pipe, and around progress bars; keeps it in run.log. Credentials of
        URLs are left out of both."""
        if self.main:
            text = without_credentials(text)
            with tqdm.external_write_mode():
                print(text, flush=True)
            self._write(text)

    def keep(self, details: Any) -> None:
        """Writes JSON data to run.log alone."""
        if self.main:
            self._write(json.dumps(details, default=str, ensure_ascii=False))

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Prints a step's name, time and the `result` that the caller has put into it."""
        step, start = Step(), time.perf_counter()
        yield step
        first, *more = step.result.split("\n")
        lines = [f"{name:<24} {duration(time.perf_counter() - start):>7}  {first}", *(f"  {line}" for line in more)]
        self.say("\n".join(line.rstrip() for line in lines))
        if step.details is not None:
            self.keep({name: step.details})

    def _write(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {without_credentials(text)}\n")


def duration(seconds: float) -> str:
    """4.2 s, 83 s, 12 min, 3.4 h."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
