from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import tasks.store
from candling.errors import ServiceError
from tasks import sources
from tasks.store import Store, Stored

ROOT = Path(__file__).resolve().parents[2]
MODULE = "tasks.steps"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one step, which imports one helper."""
    package = tmp_path / "checkout" / "tasks"
    package.mkdir(parents=True)
    (package / "steps.py").write_text("from tasks.helper import double\n")
    (package / "helper.py").write_text("def double(x):\n    return 2 * x\n")
    (package / "other.py").write_text("")
    return package.parent


@pytest.fixture
def store(tmp_path: Path, checkout: Path) -> Store:
    return Store(tmp_path / "store", sources=checkout)


def write(folder: Path) -> None:
    (folder / "deep").mkdir()
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "b.bin").write_bytes(bytes(1000))


def step(store: Store, inputs: Mapping[str, Any] | None = None, compute: Any = write) -> Stored:
    return store.step("look", inputs or {"seed": 0}, compute, module=MODULE)


def left(store: Store) -> list[str]:
    return sorted(path.name for path in (store.root / "look").iterdir())


def test_miss_then_hit(store: Store) -> None:
    first = step(store)
    second = step(store, compute=lambda folder: pytest.fail("computed again"))
    assert (first.hit, second.hit) == (False, True)
    assert (first.key, first.digest, first.path) == (second.key, second.digest, second.path)
    assert first.path == store.root / "look" / first.key[:32]
    assert (first.path / "deep" / "b.bin").stat().st_size == 1000
    manifest = json.loads((first.path / "manifest.json").read_text())
    assert manifest["determined"]["inputs"] == {"seed": 0}
    assert manifest["files"]["a.txt"]["size"] == 1
    assert pickle.loads(pickle.dumps(first)) == first


def test_digest_is_of_the_content_alone(store: Store) -> None:
    one, two = step(store, {"seed": 1}), step(store, {"seed": 2})
    assert one.key != two.key
    assert one.digest == two.digest
    other = step(store, {"seed": 3}, lambda folder: (folder / "a.txt").write_text("b"))
    assert other.digest != one.digest


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_crash_leaves_nothing(store: Store, error: type[BaseException]) -> None:
    def crash(folder: Path) -> None:
        write(folder)
        raise error("no")

    with pytest.raises(error, match="no"):
        step(store, compute=crash)
    assert left(store) == []
    assert not step(store).hit


@pytest.mark.parametrize("damage", ["changed", "gone", "added", "no manifest", "truncated", "foreign"])
def test_damaged_is_computed_again(store: Store, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    path = step(store).path
    manifest = path / "manifest.json"
    match damage:
        case "changed":
            (path / "a.txt").write_text("x")
        case "gone":
            (path / "a.txt").unlink()
        case "added":
            (path / "c.txt").write_text("c")
        case "no manifest":
            manifest.unlink()
        case "truncated":
            manifest.write_bytes(manifest.read_bytes()[:100])
        case "foreign":
            manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 9'))
    with caplog.at_level(logging.WARNING, "candling"):
        assert not step(store).hit
    assert "damaged" in caplog.text
    assert left(store) == [path.name]
    assert (path / "a.txt").read_text() == "a"
    assert step(store).hit


def test_key_follows_sources(store: Store, checkout: Path) -> None:
    key = step(store).key
    (checkout / "tasks" / "other.py").write_text("unrelated = 1\n")
    assert step(store).key == key
    (checkout / "tasks" / "helper.py").write_text("def double(x):\n    return x + x\n")
    assert step(store).key != key


def test_nothing_is_kept_of_sources_edited_meanwhile(
    store: Store, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = checkout / "tasks" / "helper.py"
    monkeypatch.setitem(sources._AT_IMPORT, helper, hashlib.sha256(helper.read_bytes()).hexdigest())
    step(store, {"seed": 1})

    def edit(folder: Path) -> None:
        write(folder)
        helper.write_text("def double(x):\n    return x + x\n")

    with pytest.raises(ServiceError, match=r"tasks\.helper was edited after this process started"):
        step(store, {"seed": 2}, edit)
    assert len(left(store)) == 1


def test_key_follows_inputs_not_their_order(store: Store) -> None:
    assert step(store, {"a": 1, "b": (1, 2)}).key == step(store, {"b": [1, 2], "a": 1}).key
    assert step(store, {"a": 1}).key != step(store, {"a": 1.5}).key


@pytest.mark.parametrize("name", ["versions", "processor_kind"])
def test_key_follows_versions_and_processor(store: Store, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = step(store).key
    monkeypatch.setattr(tasks.store, name, lambda: "another")
    assert step(store).key != key


@pytest.mark.parametrize("inputs", [{"x": float("nan")}, {"x": {1, 2}}, {"x": Path()}])
def test_inputs_that_json_cannot_say(store: Store, inputs: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match="JSON"):
        step(store, inputs)


def test_step_names_are_folders(store: Store) -> None:
    with pytest.raises(ValueError, match=r"\.\./look"):
        store.step("../look", {}, write, module=MODULE)


def test_two_threads_compute_once(store: Store) -> None:
    calls: list[Path] = []
    begun, results = threading.Barrier(2), list[Stored]()

    def compute(folder: Path) -> None:
        calls.append(folder)
        write(folder)

    def work() -> None:
        begun.wait()
        # Each with a store of its own: what is shared is the folder.
        results.append(step(Store(store.root, sources=store.sources), compute=compute))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(calls) == 1
    assert sorted(result.hit for result in results) == [False, True]


def _race(store: Store, barrier: Any, results: Any) -> None:
    def compute(folder: Path) -> None:
        barrier.wait(30)  # both are past the look-up: both compute, one wins the rename
        write(folder)

    results.put(step(store, compute=compute))


def test_two_processes_agree(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_race, args=(store, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    one, two = results.get(timeout=60), results.get(timeout=60)
    for process in processes:
        process.join()
    assert one == two
    assert left(store) == [one.path.name]
    assert step(store).hit


def test_rename_lost_to_a_damaged_entry(store: Store) -> None:
    path = step(store).path
    shutil.rmtree(path)

    def compute(folder: Path) -> None:
        write(folder)
        path.mkdir()
        (path / "a.txt").write_text("half")

    assert not step(store, compute=compute).hit
    assert step(store).hit
    assert left(store) == [path.name]


def test_unwritable_store(tmp_path: Path, checkout: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match=r"file: the store of steps cannot be written \(Not a directory\)"):
        step(Store(tmp_path / "file", sources=checkout))


def test_full_disk_and_other_errors_of_a_step(store: Store) -> None:
    def full(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    def missing(folder: Path) -> None:
        raise FileNotFoundError(2, "the step's own")

    with pytest.raises(ServiceError, match=r"No space left on device"):
        step(store, compute=full)
    with pytest.raises(FileNotFoundError, match="the step's own"):
        step(store, compute=missing)
    assert left(store) == []


def test_imports_nothing_heavy() -> None:
    code = "import sys, tasks.store; print([m for m in ('torch', 'prefect', 'mlflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
