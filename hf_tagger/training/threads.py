"""How many threads a run computes with on a CPU."""

import os

import psutil
import torch

from hf_tagger.evaluation.machine import available_cores

# How many processes of the run are on this machine: torchrun's name for it, and those of MPI launchers.
LOCAL_PROCESSES = ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")
LAUNCHERS = ("accelerate", "torchrun", "torch.distributed")  # as their commands name them


def set_cpu_threads(wanted: int | None = None) -> int:
    """Lets torch compute with `wanted` threads (None: OMP_NUM_THREADS if a person has set it, else this process's share
    of the cores), and returns their number. Call it before anything is computed."""
    processes = next((int(os.environ[name]) for name in LOCAL_PROCESSES if name in os.environ), 1)
    threads = wanted or threads_asked_for() or max(1, available_cores() // processes)
    torch.set_num_threads(threads)
    return threads


def threads_asked_for() -> int | None:
    """OMP_NUM_THREADS; None where it is not set, or is the 1 that launchers export by default."""
    value = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if not value.isdigit() or int(value) < 1 or (int(value) == 1 and _is_the_launchers()):
        return None
    return int(value)


def _is_the_launchers() -> bool:
    # A launcher sets OMP_NUM_THREADS for its child processes only: the environment that it was itself started with
    # tells whether a person had set it.
    if not any(name.startswith(("ACCELERATE_", "TORCHELASTIC_")) for name in os.environ):
        return False
    try:
        launcher = psutil.Process().parent()
        command = " ".join(launcher.cmdline())
        told = "OMP_NUM_THREADS" in launcher.environ() or "num_cpu_threads" in command
    except (psutil.Error, AttributeError, OSError):  # AttributeError: the launcher has ended
        return False
    return any(name in command for name in LAUNCHERS) and not told
