"""A thousand classes in the memory of one batch, killed half-way and gone on with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from candling.models import ModelSpec, build_model
from candling.vision.climbing import FOURIER, Climbed
from candling.vision.priors import natural_prior
from candling.vision.prototypes import Prototypes, generate_prototypes

ROOT = Path(__file__).parents[2]
CLASSES, SIDE, STEPS = 1000, 128, 2
SETTINGS = replace(FOURIER, seeds=1, starts=1, steps=STEPS)


def network() -> nn.Module:
    names = tuple(map(str, range(CLASSES)))
    return build_model(ModelSpec("torchvision:mobilenet_v2", names, (SIDE, SIDE)), seed=0)


def made(
    model: nn.Module,
    classes: Sequence[int],
    folder: Path | None = None,
    finished: Callable[[int, Climbed, bool], None] | None = None,
) -> Prototypes:
    prior = natural_prior((SIDE, SIDE))
    return generate_prototypes(model, classes, prior, settings=SETTINGS, folder=folder, finished=finished)


def peak() -> int:
    """Most memory that this process has had, in KiB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1])


def main(folder: Path, said: Path) -> None:
    """All classes, in a process that may be killed: what it did goes into a file, line by line."""
    torch.set_num_threads(1)
    passes = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal passes
        if inputs[0].requires_grad:
            rows = inputs[0].detach()
            passes += int((rows != 0.5).flatten(1).any(1).sum())  # the rest is grey, which fills the pass up

    model = network()
    model.register_forward_pre_hook(count)
    with said.open("w") as file:

        def tell(place: int, row: Climbed, kept: bool) -> None:
            file.write(json.dumps({"place": place, "kept": kept, "peak": peak(), "passes": passes}) + "\n")
            file.flush()

        found = made(model, range(CLASSES), folder, tell)
    torch.save({"images": found.images, "logits": found.logits}, said.with_suffix(".pt"))


def begin(*where: Path) -> subprocess.Popen[bytes]:
    program = (
        "import sys; from pathlib import Path; from tests.vision.test_thousand_classes import main; "
        "main(*map(Path, sys.argv[1:]))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, *map(str, where)], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of each finished row."""
    stats = {file.name: file.stat() for file in folder.glob("*.safetensors")}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def lines(said: Path) -> list[dict[str, int]]:
    """What was told; the last line of a process that was killed may be torn."""
    return [json.loads(line) for line in said.read_text().splitlines() if line.endswith("}")]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_thousand_classes_in_flat_memory_go_on_after_a_kill(tmp_path: Path) -> None:
    rows, first, second = tmp_path / "rows", tmp_path / "first", tmp_path / "second"
    process = begin(rows, first)
    try:
        deadline = time.monotonic() + 120
        while len(list(rows.glob("*.safetensors"))) < CLASSES // 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=30) == -signal.SIGKILL
    finally:
        process.kill()
    half = files_of(rows)
    assert CLASSES // 2 <= len(half) < 0.9 * CLASSES

    process = begin(rows, second)
    try:
        assert process.wait(timeout=240) == 0
    finally:
        process.kill()
    told = lines(second)
    kept, new = ([line for line in told if bool(line["kept"]) is was] for was in (True, False))
    assert len(kept) == len(half)
    assert sorted(line["place"] for line in told) == list(range(CLASSES))
    assert new[-1]["passes"] == (CLASSES - len(half)) * STEPS, "no finished row is seen again"
    whole = files_of(rows)
    assert len(whole) == CLASSES
    assert {name: whole[name] for name in half} == half, "and none is written again"

    # As much memory for a tenth of the rows as for all: by 100 of the run that was killed, and over the one
    # that went on and had all in the end.
    before = lines(first)
    assert not any(line["kept"] for line in before)
    for tenth, end in ((before[CLASSES // 10 - 1], new[-1]), (new[len(new) // 10], new[-1])):
        assert end["peak"] < 1.1 * tenth["peak"], f"{tenth['peak']} KiB, and {end['peak']} in the end"

    found = torch.load(second.with_suffix(".pt"))
    assert found["images"].shape == (CLASSES, 3, SIDE, SIDE)
    assert len({image.numpy().tobytes() for image in found["images"]}) == CLASSES
    on_disk = {load_file(rows / name)["image"].numpy().tobytes() for name in whole}
    assert on_disk == {image.numpy().tobytes() for image in found["images"]}
    places = [kept[0]["place"], kept[-1]["place"], new[0]["place"], new[-1]["place"]]
    alone = made(network(), places)
    assert torch.equal(alone.images, found["images"][places])
    torch.testing.assert_close(alone.logits, found["logits"][places], atol=1e-4, rtol=1e-4)
