"""Opening a model for one look: by source, text or path, and nothing is left behind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import torch

from candling.errors import ModelError, ParamsError
from candling.models import (
    ModelSource,
    ModelSpec,
    build_model,
    import_model,
    model_digest,
    open_model,
    save_model,
)
from tests.models.factories import Tiny

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_folder_of_ours_is_read_where_it_is(tmp_path: Path) -> None:
    made = build_model(ModelSpec("residual_cnn", ("a", "b"), (16, 16), {"widths": [4, 6]}))
    save_model(made, tmp_path)
    for named in (tmp_path, str(tmp_path), ModelSource("folder", str(tmp_path))):
        model, digest = open_model(named)
        assert digest == model_digest(tmp_path)
        assert torch.equal(model(IMAGES), made(IMAGES))


def test_another_source_is_imported_and_nothing_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(Tiny().state_dict(), tmp_path / "w.pt")
    source = ModelSource(
        "factory",
        "tests.models.factories:tiny",
        str(tmp_path / "w.pt"),
        classes=("a", "b", "c"),
        image_size=(16, 16),
    )
    import_model(source, tmp_path / "imported")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    model, digest = open_model(source)
    assert list((tmp_path / "scratch").iterdir()) == []
    assert digest == model_digest(tmp_path / "imported")
    assert model.classes == ("a", "b", "c")
    assert model(IMAGES).shape == (2, 3)


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no spec.json here"):
        open_model(tmp_path / "none")
    (tmp_path / "w.pt").write_bytes(b"")
    with pytest.raises(ModelError, match="a file, not a model folder"):
        open_model(tmp_path / "w.pt")
    with pytest.raises(ParamsError, match="no source has this form"):
        open_model("ftp://somewhere")
