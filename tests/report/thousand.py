"""A made-up audit of a thousand classes: three prototypes of each, the whole matrix, measurements of all."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from candling.audit.policy import Policy, Rule
from candling.audit.record import Artifact, AuditRecord, Finding, Measurement

CLASSES = tuple(
    f"{kind} {number:03d}" for kind in ("bird", "dish", "dog", "tool", "van") for number in range(200)
)
SEEDS = 3
RECORDED = 600  # pairs, as the audit itself records
TWINS = ("dog 017", "dish 042")  # entangled on purpose, and of no one kind


def matrix(seed: int = 7) -> np.ndarray:
    """(K, K): classes of a kind excite each other a little, two of different kinds much."""
    rng = np.random.default_rng(seed)
    kinds = np.arange(len(CLASSES)) // 200
    values = rng.normal(0, 0.08, (len(CLASSES), len(CLASSES))) + 0.15 * (kinds[:, None] == kinds[None, :])
    first, second = (CLASSES.index(name) for name in TWINS)
    values[first, second] = values[second, first] = 0.9
    np.fill_diagonal(values, 1.0)
    return values.astype(np.float32)


def _picture(rng: np.random.Generator) -> bytes:
    """Something with as much detail as a prototype of 96 px."""
    coarse = Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).resize((96, 96), 3)
    fine = rng.normal(0, 18, (96, 96, 3)) + np.asarray(coarse)
    buffer = io.BytesIO()
    Image.fromarray(fine.clip(0, 255).astype(np.uint8)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _artifact(folder: Path, path: str, data: bytes, **fields: object) -> Artifact:
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)
    return Artifact.model_validate({"path": path, "sha256": hashlib.sha256(data).hexdigest(), **fields})


def thousand(folder: Path) -> AuditRecord:
    """The record, its files written to `folder`."""
    rng = np.random.default_rng(3)
    values = matrix()
    table = pd.DataFrame(values, columns=[str(k) for k in range(len(CLASSES))])
    table.insert(0, "class", list(CLASSES))
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    fields = {"section": "entanglement", "scope": {"view": "matrix"}}
    artifacts = [_artifact(folder, "entanglement-matrix.parquet", buffer.getvalue(), **fields)]
    measurements, trust = [], rng.uniform(0, 1, len(CLASSES))
    for place, name in enumerate(CLASSES):
        for seed in range(SEEDS):
            artifacts.append(
                _artifact(
                    folder, f"pictures/prototypes/{place}-{seed}.png", _picture(rng), section="prototypes",
                    scope={"class": name, "seed": str(seed)}, caption=f"seed {seed}",
                    values={"trust": round(float(trust[place]), 4), "probability": 0.9, "agreement": 0.5},
                )
            )  # fmt: skip
        for id, value, n in (
            ("accuracy.class", float(rng.uniform(0.3, 1)), 50),
            ("prototype.trust", float(trust[place]), SEEDS),
            ("prototype.agreement", float(rng.uniform(0, 1)), SEEDS),
            ("prototype.probability_unseen_transforms", float(rng.uniform(0, 1)), SEEDS),
        ):
            low, high = max(0.0, value - 0.1), min(1.0, value + 0.1)
            measurements.append(
                Measurement(
                    id=id, scope={"class": name}, n=n,
                    value=round(value, 8), low=round(low, 8), high=round(high, 8),
                )
            )  # fmt: skip
    off = np.where(np.eye(len(CLASSES), dtype=bool), -np.inf, values)
    for flat in np.argsort(-off, axis=None)[:RECORDED]:
        c, k = divmod(int(flat), len(CLASSES))
        value = round(float(values[c, k]), 8)
        measurements.append(
            Measurement(
                id="entanglement.directed", scope={"from": CLASSES[c], "to": CLASSES[k]}, n=SEEDS,
                value=value, low=value - 0.1, high=value + 0.1, note="p 0.001, q 0.02",
            )
        )  # fmt: skip
    strongest = Measurement(
        id="entanglement.strongest_pair", value=0.9, low=0.8, high=1.0, n=SEEDS, note=" → ".join(TWINS)
    )
    overall = Measurement(id="accuracy.overall", value=0.71, low=0.7, high=0.72, n=50_000)
    return AuditRecord(
        audit="thousand", subject="model", kind="vision", title="A thousand classes", classes=CLASSES,
        digests={"model": "ab" * 32, "data.eval": "cd" * 32},
        measurements=(overall, strongest, *measurements),
        findings=(
            Finding(
                id="confusion.twins", kind="confusion", scope={"class": TWINS[0]}, status="confirmed",
                statement=f"{TWINS[0]} and {TWINS[1]} excite each other.", evidence=(strongest,),
            ),
        ),
        artifacts=tuple(artifacts),
        policy=Policy(
            rules=(
                Rule(measurement="accuracy.overall", at_least=0.65),
                Rule(measurement="entanglement.strongest_pair", at_most=0.8),
            )
        ),
        environment={"candling": "0.1.0"},
    )  # fmt: skip
