"""How many threads a run computes with on a CPU."""

import os
from pathlib import Path

import psutil
import torch

# How many processes of the run are on this machine: torchrun's name for it, and those of MPI launchers.
LOCAL_PROCESSES = ("LOCAL_WORLD_SIZE", "MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "MV2_COMM_WORLD_LOCAL_SIZE")


def set_cpu_threads(wanted: int | None = None) -> int:
    """Lets torch compute with `wanted` threads; where that is None with OMP_NUM_THREADS, if a person has set it, else
    with this process's share of the cores. Returns their number.

    Call it before anything is computed.
    """
    threads = wanted or threads_asked_for() or max(1, available_cores() // local_processes())
    torch.set_num_threads(threads)
    return threads


def threads_asked_for() -> int | None:
    """OMP_NUM_THREADS, unless it is the 1 that launchers export where nobody has said anything.

    `accelerate launch` and `torch.distributed.run` hand it to their child processes alone: the environment that they
    were started with themselves tells whether it was a person's wish.
    """
    value = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    if not value.isdigit() or int(value) < 1:
        return None
    launched = any(name.startswith(("ACCELERATE_", "TORCHELASTIC_")) for name in os.environ)
    if int(value) == 1 and launched and not _launcher_was_told():
        return None
    return int(value)


def _launcher_was_told() -> bool:
    try:
        launcher = psutil.Process().parent()
        return "OMP_NUM_THREADS" in launcher.environ() or any("num_cpu_threads" in word for word in launcher.cmdline())
    except (psutil.Error, AttributeError, OSError):  # AttributeError: the launcher has ended
        return False


def local_processes() -> int:
    """Processes of this run on this machine."""
    return next((int(os.environ[name]) for name in LOCAL_PROCESSES if name in os.environ), 1)


def available_cores() -> int:
    """Cores that this process may use: those it is bound to, and no more than a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroups here, or "max": no quota
        return cores
