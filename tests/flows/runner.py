"""CI as far as the shell of our jobs sees it: GitHub's runner of the composite action, and GitLab's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
# What runs outside of GitHub: all of its own shell, but the call of its API.
STEPS = [step for step in ACTION["runs"]["steps"] if "run" in step and step["name"] != "Comment"]
# The environment that tests run in stands for the one that a job would install.
MAKEFILE = ".venv:\n\t@true\n.PHONY: .venv\n"


class Runner:
    """GitHub's runner, as far as the action's shell sees it: inputs, outputs of steps, and its files.

    path: folders of commands that come before all others.
    """

    def __init__(self, root: Path, place: Path, *, path: Path | None = None, **given: str) -> None:
        place.mkdir()
        self.root, self.place = root, place
        self.path = [] if path is None else [str(path)]
        self.inputs = {key: str(spec.get("default", "")) for key, spec in ACTION["inputs"].items()} | given
        self.outputs: dict[str, dict[str, str]] = {}
        self.outcomes: dict[str, str] = {}
        self.printed = ""

    def file(self, name: str) -> Path:
        return self.place / name

    def _value(self, text: str) -> str:
        def found(match: re.Match[str]) -> str:
            kind, _, rest = match[1].partition(".")
            if kind == "inputs":
                return self.inputs[rest]
            if rest.endswith(".outcome"):
                return self.outcomes.get(rest.removesuffix(".outcome"), "skipped")
            step, _, name = rest.partition(".outputs.")
            return self.outputs.get(step, {}).get(name, "")

        return re.sub(r"\$\{\{\s*([\w.-]+)\s*\}\}", found, text)

    def run(self) -> int:
        """Every step in order; one that fails leaves those with `always()`, and the code is the last's."""
        failed, code = False, 0
        for step in STEPS:
            if failed and "always()" not in str(step.get("if", "")):
                continue
            code = self._step(step)
            failed = failed or code != 0
        return code

    def _step(self, step: dict[str, Any]) -> int:
        output = self.file("output")
        output.write_text("")
        files = {"GITHUB_OUTPUT": output}
        files |= {f"GITHUB_{name}": self.file(name.lower()) for name in ("PATH", "ENV", "STEP_SUMMARY")}
        for file in files.values():
            file.touch()
        given = {key: self._value(str(value)) for key, value in step.get("env", {}).items()}
        path = os.pathsep.join([*self.path, str(Path(sys.executable).parent), os.environ["PATH"]])
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.root,
            env={**os.environ, "PATH": path, **given, **{key: str(file) for key, file in files.items()}},
            capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        self.printed += done.stdout + done.stderr
        lines = (line.partition("=") for line in output.read_text().splitlines())
        self.outputs[step.get("id", step["name"])] = {key: value for key, _, value in lines}
        self.outcomes[step.get("id", step["name"])] = "success" if done.returncode == 0 else "failure"
        return done.returncode


def inputs_of(workflow: Path) -> dict[str, str]:
    """What a workflow of GitHub gives the action of the repository that it lies in."""
    jobs: dict[str, Any] = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]
    (step,) = [step for job in jobs.values() for step in job["steps"] if step["uses"] == "./"]
    assert step["with"].keys() <= ACTION["inputs"].keys()
    return {key: str(value) for key, value in step["with"].items()}


def run_gitlab(root: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """Run the script of the one job of `.gitlab-ci.yml`, as GitLab's runner would.

    Parameters
    ----------
    root
        Of the repository.
    path
        The folder of `candling`, which takes the place of the environment that the job makes.
    """
    jobs: dict[str, Any] = yaml.safe_load((root / ".gitlab-ci.yml").read_text(encoding="utf-8"))
    template: dict[str, Any] = yaml.safe_load(
        (root / jobs.pop("include")["local"]).read_text(encoding="utf-8")
    )
    ((_, job),) = jobs.items()
    base = template[job["extends"]]
    bin = root / ".venv" / "bin"
    bin.mkdir(parents=True, exist_ok=True)
    if not (bin / "candling").exists():
        (bin / "candling").symlink_to(path / "candling")
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", "\n".join(base["script"])],
        cwd=root,
        env={**os.environ, **base["variables"], **job["variables"]},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
