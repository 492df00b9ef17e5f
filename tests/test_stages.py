"""The stages that docs name are stages that DVC sees in a clone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

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


@pytest.mark.parametrize("file", ["dvc.yaml", "models/food/dvc.yaml"])
def test_what_stages_depend_on_is_there(file: str) -> None:
    for name, stage in yaml.safe_load((ROOT / file).read_text())["stages"].items():
        folder = (ROOT / file).parent / stage.get("wdir", ".")
        for params in stage.get("params", []):
            for path, keys in params.items():
                said = yaml.safe_load((folder / path).read_text())
                assert set(keys) <= set(said), f"{name} in {file}: {path} lacks a key"
