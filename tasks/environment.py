"""Where a run happened: what decides its results, and what merely differs from run to run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import socket
import subprocess
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

__all__ = ["environment", "git_revision", "processor_kind", "run_facts", "versions"]

_DECIDING = ("torch", "torchvision", "numpy", "scipy", "pillow", "transformers", "timm", "onnxruntime")
_VENDORS = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """Versions that decide results, read without importing anything."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **{name: _version(name) for name in _DECIDING}}


def _accelerator() -> str | None:
    """Name of the NVIDIA device, from the driver: importing torch for it would cost seconds."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    for file in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        for line in file.read_text(encoding="utf-8").splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return None


@cache
def _cpu() -> str:
    words = [platform.system(), platform.machine()]
    try:
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return " ".join(words)
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in info.splitlines())
    }
    # The kernels of oneDNN and MKL are chosen by vector width and vendor, and round differently.
    words.append(_VENDORS.get(facts.get("vendor_id", ""), ""))
    flags = set(facts.get("flags", "").split())
    words.append("avx512" if "avx512f" in flags else "avx2" if "avx2" in flags else "")
    return " ".join(word for word in words if word)


def processor_kind() -> str:
    """Kind of processor within which results agree bit for bit, such as ``Linux x86_64 amd avx512``."""
    device = _accelerator()
    return _cpu() if device is None else f"{_cpu()} + {device}"


def environment(*, device: str = "cpu", threads: int = 1) -> dict[str, str]:
    """What decides an audit's results besides its inputs: the same on every machine of a kind.

    Parameters
    ----------
    device
        Where the engine computed; ``cuda`` is replaced by the device's name.
    threads
        Threads that each step computed with, not the number of cores, which changes no result.
    """
    if device != "cpu":
        device = _accelerator() or device
    return {
        **versions(),
        "python": platform.python_version(),
        "candling": _version("candling"),
        "processor": _cpu(),
        "device": device,
        "threads": str(threads),
    }


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None  # no git, no repository, no commit yet
    return done.stdout.strip()


def git_revision(root: Path) -> str | None:
    """The commit that is checked out at `root`, None where there is none."""
    return _git(root, "rev-parse", "--verify", "--quiet", "HEAD")


def run_facts(root: Path) -> dict[str, str | int | bool | None]:
    """What differs from run to run, for `run.json`."""
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "host": socket.gethostname(),
        "cores": os.cpu_count(),
        "git_revision": git_revision(root),
        "git_dirty": None if status is None else bool(status),
    }
