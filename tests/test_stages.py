"""The stages that docs name are stages that DVC sees in a clone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("stage", ["scenes", "train", "audit", "models/food/dvc.yaml:train"])
def test_dvc_sees_the_stage(stage: str) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone: what git ignores is unknown")
    listed = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--all", "--name-only"],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={**os.environ, "DVC_NO_ANALYTICS": "1"},
    )  # fmt: skip
    assert listed.returncode == 0, listed.stderr
    assert stage in listed.stdout.splitlines()
