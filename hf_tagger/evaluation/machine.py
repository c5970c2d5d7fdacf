"""Describes the machine that a figure is measured on; this process among others."""

import os
import platform
from importlib import metadata
from pathlib import Path

import psutil
import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "peft", "timm", "evaluate", "hf_tagger")


def describe_machine() -> dict:
    """The "cpu", the "cores" that this process may use, "threads" of torch, "memory_gb", "gpu", "bf16_is_fast",
    "system", and the "load_average" of the last minute: on an idle machine about 0."""
    from hf_tagger.model.pipeline_tagger import bf16_is_fast  # imports seconds of transformers

    cuda = torch.cuda.is_available()
    return {
        "cpu": _cpu_name(),
        "cores": available_cores(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "bf16_is_fast": bf16_is_fast(torch.device("cuda" if cuda else "cpu")),
        "system": platform.platform(),
        "load_average": round(psutil.getloadavg()[0], 2),
    }


def package_versions() -> dict[str, str | None]:
    """Versions of what a figure or a model depends on; None of a package that is on the path, but not installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def available_cores() -> int:
    """Cores that this process may use: those it is bound to, and no more than a container's quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroups here, or "max": no quota
        return cores


def process_state() -> PartialState:
    """This process among those that share the work, and its device. accelerate must be told where there is no
    accelerator, else it takes each of several processes for the only one."""
    return PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available())


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
