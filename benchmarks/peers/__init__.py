"""Other projects that ours is measured against, each in an environment of its own.

`<name>.txt` beside this file names all that a peer needs, in exact versions, without torch: a `.pth` puts the
project's own packages after the peer's, so that all are measured on the same torch and torchvision.
`run_<name>.py` runs there, as a subprocess: it reads a request (JSON) and writes an answer (`torch.save`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

import torch

__all__ = ["ask", "environment"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def environment(name: str) -> Path:
    """The Python of a peer's environment, which is made if it is not there as `<name>.txt` says."""
    wanted = HERE / f"{name}.txt"
    folder = ROOT / ".candling" / "peers" / name
    python = folder / "bin" / "python"
    made = folder / "made-of"
    project = sysconfig.get_paths()["purelib"]
    digest = hashlib.sha256(wanted.read_bytes() + project.encode() + sys.version.encode()).hexdigest()
    if made.exists() and made.read_text() == digest:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "-r", str(wanted)], check=True)
    own = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
    (folder / own / "project.pth").write_text(project + "\n")
    made.write_text(digest)
    return python


def ask(name: str, request: dict[str, Any], *, threads: int) -> dict[str, Any]:
    """What `run_<name>.py` answers to a request, in a subprocess on `threads` threads.

    Raises
    ------
    RuntimeError
        If the peer fails; the message ends with what it wrote.
    """
    python = environment(name)
    with tempfile.TemporaryDirectory() as scratch:
        question, answer = Path(scratch, "request.json"), Path(scratch, "answer.pt")
        question.write_text(json.dumps(request))
        done = subprocess.run(
            [str(python), "-m", f"benchmarks.peers.run_{name}", str(question), str(answer)],
            cwd=scratch,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)},
            capture_output=True,
            text=True,
        )
        if done.returncode or not answer.exists():
            raise RuntimeError(f"{name} failed (exit code {done.returncode}): {done.stderr[-2000:]}")
        answered: dict[str, Any] = torch.load(answer, weights_only=True)
        return answered
