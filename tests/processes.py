"""Processes that tests start. What these need of the environment is set in tests/conftest.py."""

import gc
import importlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# What takes seconds to import.
HEAVY = ["pytest", "hf_tagger.evaluation.inference", "hf_tagger.evaluation.protocols", "hf_tagger.training.phases",
         "hf_tagger.training.rare_tags", "hf_tagger.training.report", "hf_tagger.training.starting_model"]


def run_python(code: str, *arguments: object, **environment: str) -> Any:
    """What `code` prints last, as JSON, in a process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def forks():
    """The context of processes that are forked from one that has imported what is `HEAVY`, but done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(HEAVY)
    forkserver.ensure_running()
    return context


def run_recipe(name: str, *arguments: object, cwd: Path = ROOT, processes: int = 1) -> str:
    """What recipes/{name}.py prints, run in `forks`; several share the work as those of `accelerate launch` do."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        output, started = Path(folder, "output"), []
        for rank in range(processes):
            environment = as_rank(rank, processes, port) if processes > 1 else {}
            started.append(forks().Process(target=_run, args=(name, [*map(str, arguments)], cwd, output, environment)))
            started[-1].start()
        for process in started:
            process.join(300)
        errors = output.with_suffix(".err").read_text(encoding="utf-8")
        assert [process.exitcode for process in started] == [0] * processes, errors[-3000:]
        return output.read_text(encoding="utf-8")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def as_rank(rank: int, processes: int, port: int) -> dict[str, str]:
    """The environment of one of several processes that share a recipe's work."""
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes)}


def _run(name: str, arguments: list[str], cwd: Path, output: Path, environment: dict) -> None:
    as_started_by_hand(output)
    os.environ |= environment
    os.chdir(cwd)
    sys.exit(importlib.import_module(f"recipes.{name}").main(arguments))


def as_started_by_hand(output: Path, errors: Path | None = None) -> None:
    """What this process prints goes to files, what is wrong to `errors` (default: one beside `output`); a loader's
    workers are forked, where one of `forks` would ask its server for them."""
    gc.freeze()  # what the server has imported stays to the end
    for number, path in ((1, output), (2, errors or output.with_suffix(".err"))):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    multiprocessing.set_start_method("fork", force=True)
