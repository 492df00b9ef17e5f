"""What a manifest says beside its pictures reaches the audit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from candling.data import DataSource, read_source
from candling.models import ModelSpec, build_model, save_model
from tasks.import_data import _digest
from tests.tasks.small_audit import audited

CLASSES = ("cat", "dog", "egg")
SIZE = (24, 20)


def write(root: Path, *, clean: bool) -> dict[str, Any]:
    """A model, and six pictures with masks; with a column `clean`, also without their objects."""
    save_model(
        build_model(ModelSpec("residual_cnn", CLASSES, SIZE, arguments={"widths": [3, 4]})), root / "m"
    )
    rng = np.random.default_rng(0)
    (root / "source").mkdir()
    mask = np.zeros(SIZE, np.uint8)
    mask[4:12, 4:12] = 255
    Image.fromarray(mask).save(root / "source" / "mask.png")
    lines = ["path,label,mask" + ",clean" * clean]
    for row in range(6):
        pixels = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "source" / f"{row}.png")
        pixels[mask > 0] = 128
        Image.fromarray(pixels).save(root / "source" / f"{row}-clean.png")
        lines.append(f"{row}.png,{CLASSES[row % 3]},mask.png" + f",{row}-clean.png" * clean)
    (root / "source" / "manifest.csv").write_text("\n".join(lines))
    return {"eval": {"location": "source/manifest.csv"}}


def test_clean_pictures_let_the_likeness_of_prototypes_be_measured(tmp_path: Path) -> None:
    for clean in (False, True):
        root = tmp_path / str(clean)
        root.mkdir()
        record = audited(root, "m", write(root, clean=clean))
        assert record.errors == ()
        found = {m.scope["class"] for m in record.measurements if m.id == "prototype.object_similarity"}
        assert found == (set(CLASSES) if clean else set())
        assert ("left_out.prototype_similarity" in record.notes) is not clean


def test_the_digest_of_a_source_is_of_clean_pictures_too(tmp_path: Path) -> None:
    write(tmp_path, clean=True)
    source = DataSource(tmp_path / "source" / "manifest.csv")
    before = _digest(read_source(source))
    assert _digest(read_source(source)) == before
    Image.new("RGB", SIZE[::-1]).save(tmp_path / "source" / "3-clean.png")
    changed = _digest(read_source(source))
    assert changed != before
    (tmp_path / "source" / "3-clean.png").unlink()
    assert _digest(read_source(source)) not in (before, changed)
