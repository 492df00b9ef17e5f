"""The wheel: candling alone, and its gate runs on the base install within a second."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import pytest

from candling.audit.record import write_record
from tests.audit.records import BAD, GOOD, record

ROOT = Path(__file__).parents[1]

# What the extras bring, and numpy and pandas besides: the gate has no use for them.
BLOCKED = (
    "torch", "torchvision", "transformers", "safetensors", "numpy", "pandas", "scipy", "PIL", "matplotlib",
    "prefect", "mlflow", "dvc", "fastapi", "ray", "dask", "flows", "tasks",
)  # fmt: skip

PROGRAM = """
import sys
wheel, site, *arguments = sys.argv[1:]
blocked = {blocked!r}

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{{name}} is not in the base install", name=name)

sys.meta_path.insert(0, Block())
sys.path[:] = [wheel, *sys.path, site]
sys.argv = ["candling", *arguments]
import candling.cli.main
assert candling.cli.main.__file__.startswith(wheel), candling.cli.main.__file__
candling.cli.main.main()
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # From a copy: setuptools leaves build folders behind, and a stale one would end up in the wheel.
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("candling", "flows", "tasks"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(source),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_candling_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops - {"candling"} == {f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    expected = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "candling").rglob("*")
        if file.suffix in (".py", ".typed", ".html", ".css", ".js", ".json")
    }
    assert {name for name in names if name.startswith("candling/")} == expected


def test_the_wheel_names_its_command_and_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as opened:
        info = next(name.partition("/")[0] for name in opened.namelist() if ".dist-info/" in name)
        assert "candling = candling.cli.main:main" in opened.read(f"{info}/entry_points.txt").decode()
        lines = opened.read(f"{info}/METADATA").decode().splitlines()
    extras = {line.removeprefix("Provides-Extra: ") for line in lines if line.startswith("Provides-Extra: ")}
    assert {"engine", "audit", "dask", "ray", "bench", "test"} <= extras
    base = [line for line in lines if line.startswith("Requires-Dist: ") and "extra ==" not in line]
    assert base
    assert not any("torch" in line for line in base)


def test_the_gate_of_the_base_install_needs_no_torch_and_no_second(wheel: Path, tmp_path: Path) -> None:
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    # As pip does, which compiles what it installs.
    subprocess.run([sys.executable, "-m", "compileall", "-q", str(installed)], check=True, timeout=120)
    write_record(record(*GOOD), tmp_path / "after")
    write_record(record(*BAD), tmp_path / "before")
    site = sysconfig.get_paths()["purelib"]
    # -S: no site-packages but the one that is given, so that no editable install gets in; -P: nor the cwd.
    command = [sys.executable, "-S", "-P", "-c", PROGRAM.format(blocked=BLOCKED), str(installed), site]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def gate(subject: str) -> tuple[int, str, float]:
        start = time.perf_counter()
        done = subprocess.run(
            [*command, "gate", str(tmp_path / subject)],
            env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.stderr == ""
        return done.returncode, done.stdout, time.perf_counter() - start

    code, out, _ = gate("before")
    assert code == 1
    assert "tanks/before: blocked by 3 of 3 rules" in out
    runs = [gate("after") for _ in range(5)]
    assert {code for code, _, _ in runs} == {0}
    # The quickest: what else the machine does is not the gate's.
    assert min(seconds for _, _, seconds in runs) < 1.0
