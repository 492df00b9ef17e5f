"""The seed of an audit is what it draws: other prototypes and other pictures, the same accuracy."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from candling.audit.comparison import compare
from candling.audit.record import AuditRecord
from candling.models import ModelSpec, build_model, save_model
from tests.tasks.small_audit import audited, by_scope


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> dict[int, AuditRecord]:
    root = tmp_path_factory.mktemp("seeds")
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / "pictures" / name).mkdir(parents=True)
        for row in range(24):
            pixels = generator.integers(0, 256, (24, 24, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "pictures" / name / f"{row:02}.png")
    save_model(build_model(ModelSpec("residual_cnn", ("cat", "dog"), (24, 24))), root / "model")
    climb = {"parameterisation": "fourier", "seeds": 3, "steps": 3}
    data = {"eval": {"location": "pictures"}}
    return {
        key: audited(root, "model", data, seed=seed, prototypes=climb)
        for key, seed in ((0, 0), (1, 1), (2, 1))
    }


def test_the_same_seed_is_the_same_record(records: dict[int, AuditRecord]) -> None:
    assert records[1].to_json() == records[2].to_json()


def test_another_seed_draws_anew(records: dict[int, AuditRecord]) -> None:
    one, other = by_scope(records[0]), by_scope(records[1])
    assert one.keys() == other.keys()
    for id in ("accuracy.overall", "accuracy.class"):
        assert [m for m in records[0].measurements if m.id == id] == [
            m for m in records[1].measurements if m.id == id
        ]
    moved = {id for (id, scope), m in one.items() if m.value != other[id, scope].value}
    assert "prototype.probability_unseen_transforms" in moved
    assert any(id.startswith(("isolation.", "attack.", "factor.")) for id in moved)
    pictures = [
        {artifact.scope.get("seed") for artifact in record.artifacts if artifact.section == "prototypes"}
        for record in records.values()
    ]
    assert pictures == [{"0", "1", "2"}, {"3", "4", "5"}, {"3", "4", "5"}]


def test_what_chance_moved_is_no_change(records: dict[int, AuditRecord]) -> None:
    assert compare(records[0], records[1]).significant == ()
