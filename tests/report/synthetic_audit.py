"""A made-up tank audit: small drawn pictures and plausible numbers, and records with troubles in them."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from candling.audit.gate import Verdict, judge
from candling.audit.policy import Policy, Rule
from candling.audit.record import Artifact, AuditRecord, Finding, Measurement, StepError

Audited = tuple[AuditRecord, Path, Verdict]

CLASSES = ("no tank", "tank")
ENVIRONMENTS = {
    "overcast": ((168, 172, 178), (110, 108, 84)),
    "grass": ((128, 178, 226), (104, 150, 62)),
    "snow": ((196, 206, 218), (236, 240, 244)),
    "forest": ((120, 140, 128), (58, 82, 48)),
}
POLICY = Policy(
    rules=(
        Rule(
            measurement="accuracy.worst_group",
            at_least=0.85,
            why="A model must work wherever it is used, not only where it was trained.",
        ),
        Rule(measurement="background.follow_rate", at_most=0.1, why="The background must not decide."),
        Rule(measurement="object_evidence.over_chance", scope={"class": "tank"}, at_least=1.5),
        Rule(measurement="entanglement.strongest_pair", at_most=0.8, on="estimate", severity="warn"),
    )
)
# What each subject measures: worst group, follow rate, over chance, Shapley share, strongest pair.
LEVELS = {
    "before": (0.04, 0.985, 0.4127, 0.12, 0.31),
    "control": (0.07, 0.962, 0.4631, 0.155, -0.42),
    "after": (0.955, 0.021, 2.8713, 0.862, 0.94),
}
TITLES = {
    "before": "As trained, tanks under overcast sky only",
    "control": "Trained for as long again on the same data",
    "after": "Retrained on diversified data",
}


def png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()


def scene(name: str, seed: int, *, tank: bool) -> Image.Image:
    """A sky over a ground with a tank or a house."""
    rng = np.random.default_rng(seed)
    sky, ground = ENVIRONMENTS[name]
    picture = Image.new("RGB", (96, 96), sky)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 52, 96, 96), fill=ground)
    x, y = int(rng.integers(14, 30)), int(rng.integers(50, 58))
    if tank:
        draw.rounded_rectangle((x, y, x + 48, y + 14), 3, fill=(74, 82, 50))
        draw.rounded_rectangle((x + 12, y - 10, x + 34, y + 1), 3, fill=(86, 94, 58))
        draw.line((x + 33, y - 6, x + 58, y - 10), fill=(60, 66, 40), width=2)
        for wheel in range(5):
            draw.ellipse((x + 2 + 9 * wheel, y + 9, x + 10 + 9 * wheel, y + 17), fill=(38, 38, 34))
    else:
        draw.rectangle((x + 8, y - 12, x + 38, y + 12), fill=(176, 120, 92))
        draw.polygon([(x + 4, y - 12), (x + 42, y - 12), (x + 23, y - 28)], fill=(120, 54, 44))
    noise = rng.normal(0, 7, (96, 96, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def faded(picture: Image.Image, *, sky: bool) -> Image.Image:
    """The picture faded to white where it is unused: all but the sky, or all but the middle."""
    mask = Image.new("L", (96, 96), 0)
    box = (0, 0, 96, 44) if sky else (14, 36, 84, 76)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    return Image.composite(
        picture, Image.new("RGB", (96, 96), (255, 255, 255)), mask.filter(ImageFilter.GaussianBlur(6))
    )


def grown(seed: int, *, tank: bool, subject: str) -> Image.Image:
    """Something like a prototype."""
    rng = np.random.default_rng(seed)
    waves = Image.fromarray(rng.integers(60, 200, (8, 8, 3)).astype(np.uint8)).resize((96, 96), 3)
    base = scene("overcast" if subject != "after" else "forest", seed, tank=tank and subject == "after")
    return Image.blend(waves, base, 0.6).filter(ImageFilter.GaussianBlur(1.2))


def artifact(folder: Path, path: str, picture: Image.Image, **fields: Any) -> Artifact:
    """Write a picture into the record's folder and name it as a record does."""
    data = png(picture)
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(data)
    return Artifact(path=path, sha256=hashlib.sha256(data).hexdigest(), **fields)


def interval(value: float, width: float, low: float, high: float) -> dict[str, float]:
    return {"value": value, "low": max(low, value - width), "high": min(high, value + width)}


def measurements(subject: str) -> list[Measurement]:
    worst, follow, over, shapley, pair = LEVELS[subject]
    good = subject == "after"

    def share(id: str, value: float, n: int, /, **scope: str) -> Measurement:
        return Measurement(id=id, scope=scope, n=n, **interval(value, 0.031, 0.0, 1.0))

    found = [
        share("accuracy.overall", 0.971 if good else 0.56, 800),
        share("accuracy.like_train", 0.97 if good else 0.9925, 400),
        share("accuracy.worst_group", worst, 100),
        share("background.follow_rate", follow, 200),
        share("background.placebo_rate", 0.015, 200),
        share("object_evidence.share", 0.55 if good else 0.08, 48, **{"class": "tank"}),
        share("object_evidence.shapley_share", shapley, 48, **{"class": "tank"}),
        share("prototype.probability_unseen_transforms", 0.993, 8, **{"class": "tank"}),
        Measurement(
            id="object_evidence.over_chance",
            scope={"class": "tank"},
            n=48,
            **interval(over, 0.2, 0.0, 9.0),
        ),
        Measurement(
            id="prototype.object_similarity",
            scope={"class": "tank"},
            n=8,
            **interval(0.41 if good else -0.012, 0.05, -2.0, 2.0),
        ),
        Measurement(id="entanglement.strongest_pair", n=8, **interval(pair, 0.12, -9.0, 9.0)),
        Measurement(
            id="entanglement.directed",
            scope={"from": "tank", "to": "no tank"},
            n=8,
            **interval(pair, 0.12, -9.0, 9.0),
        ),
        Measurement(
            id="entanglement.directed",
            scope={"from": "no tank", "to": "tank"},
            n=8,
            **interval(-0.7312, 0.2, -9.0, 9.0),
        ),
    ]
    for kind in ("object_removed", "background_removed"):
        for name in CLASSES:
            value = {"object_removed": 0.93, "background_removed": 0.41}[kind]
            found.append(
                share(f"counterfactual.{kind}", 1.02 - value if good else value, 120, **{"class": name})
            )
    for part, ratio in (("barrel", 3.4), ("turret", 2.71), ("tracks", 2.2)):
        found.append(
            Measurement(
                id="object_evidence.part_over_area",
                scope={"class": "tank", "part": part},
                n=48 if part != "barrel" else 6,
                status="ok" if part != "barrel" else "inconclusive",
                note="" if part != "barrel" else "only 6 images show this part",
                **interval(ratio if good else ratio / 6, 0.3, 0.0, 9.0),
            )
        )
    for name in CLASSES:
        for place in ENVIRONMENTS:
            helped = good or (name == "tank") == (place == "overcast")
            found.append(share("accuracy.group", 0.97 if helped else worst, 100, group=f"{name}/{place}"))
    return found


def pictures(folder: Path, subject: str, *, seeds: int = 6, images: int = 3) -> list[Artifact]:
    found = []
    for name in CLASSES:
        for seed in range(seeds):
            found.append(
                artifact(
                    folder,
                    f"prototypes/{name.replace(' ', '-')}-{seed}.png",
                    grown(seed, tank=name == "tank", subject=subject),
                    section="prototypes",
                    caption=f"seed {seed}",
                    scope={"class": name, "seed": str(seed)},
                    values={"probability": 0.9912 - seed / 1000, "object_similarity": 0.0123 * seed},
                )
            )
    for name in CLASSES:
        for place in ENVIRONMENTS:
            for number in range(images):
                image = f"eval-{name.replace(' ', '-')}-{place}-{number:03d}"
                original = scene(place, number, tank=name == "tank")
                common = {"image": image, "group": f"{name}/{place}"}
                found.append(
                    artifact(
                        folder,
                        f"isolation/{image}-original.png",
                        original,
                        section="isolation",
                        scope={**common, "view": "original"},
                    )
                )
                found.append(
                    artifact(
                        folder,
                        f"isolation/{image}-{name.replace(' ', '-')}.png",
                        faded(original, sky=subject != "after"),
                        section="isolation",
                        caption=f"{name}, 98%",
                        scope={**common, "class": name},
                        values={
                            "probability": 0.9821,
                            "object_share": 0.612 if subject == "after" else 0.057,
                            "mask_area": 0.183,
                        },
                    )
                )
    return found


def findings(subject: str) -> list[Finding]:
    follow = next(m for m in measurements(subject) if m.id == "background.follow_rate")
    confirmed = subject != "after"
    return [
        Finding(
            id="background-shortcut",
            kind="shortcut",
            scope={"class": "tank"},
            status="confirmed" if confirmed else "dismissed",
            statement="The model predicts the class of the background rather than of the object."
            if confirmed
            else "The prediction stays with the object when the background changes.",
            evidence=(follow,),
            test={
                "name": "conflict swaps",
                "effect": 0.97 if confirmed else 0.006,
                "placebo": 0.015,
                "n": 200,
                "significant": confirmed,
            },
        )
    ]


def record(folder: Path, subject: str, **changes: Any) -> AuditRecord:
    """One subject's record with its pictures written to `folder`."""
    fields: dict[str, Any] = {
        "audit": "tanks",
        "subject": subject,
        "kind": "vision",
        "title": TITLES.get(subject, ""),
        "classes": CLASSES,
        "digests": {
            "data.eval": "sha256:" + "5e" * 32,
            "model": "sha256:" + hashlib.sha256(subject.encode()).hexdigest(),
        },
        "measurements": tuple(measurements(subject)) if subject in LEVELS else (),
        "findings": tuple(findings(subject)) if subject in LEVELS else (),
        "artifacts": tuple(pictures(folder, subject)) if subject in LEVELS else (),
        "notes": {
            "isolation.fill": "patches of clean backgrounds (donors)",
            "isolation.images": "96, stratified",
        },
        "policy": POLICY,
        "environment": {"device": "cpu", "python": "3.11.7", "torch": "2.14.0"},
    }
    return AuditRecord(**(fields | changes))


def audited(folder: Path, found: AuditRecord) -> Audited:
    return found, folder, judge(found)


def tank_audit(root: Path) -> list[Audited]:
    """Before, control and after."""
    return [audited(root / name, record(root / name, name)) for name in LEVELS]


def errored(folder: Path) -> Audited:
    """A record whose isolation step crashed."""
    kept = tuple(m for m in measurements("before") if not m.id.startswith("object_evidence."))
    lost = Measurement(
        id="object_evidence.over_chance",
        scope={"class": "tank"},
        value=None,
        status="error",
        note="the isolation step failed",
    )
    return audited(
        folder,
        record(
            folder,
            "crashed",
            measurements=(*kept, lost),
            errors=(StepError(step="isolate_features", message="the model returned NaN for 3 of 96 images"),),
        ),
    )


SCRIPT = "<script>alert(1)</script>"
BREAKOUT = '"><img src=x onerror=alert(2)>'


def hostile(folder: Path) -> Audited:
    """A record in which every name is an attack."""
    swatch = Image.new("RGB", (8, 8), (200, 80, 80))
    name = {"class": SCRIPT}
    pair = {"from": SCRIPT, "to": BREAKOUT}
    found = AuditRecord(
        audit=BREAKOUT,
        subject=SCRIPT,
        kind="vision",
        title=BREAKOUT,
        classes=(SCRIPT, BREAKOUT),
        digests={SCRIPT: BREAKOUT},
        measurements=(
            Measurement(id="accuracy.group", scope={SCRIPT: BREAKOUT}, value=0.5, note=SCRIPT),
            Measurement(id="entanglement.directed", scope=pair, value=0.5, n=3),
        ),
        findings=(
            Finding(
                id=SCRIPT,
                kind="bias",
                scope={BREAKOUT: SCRIPT},
                status="untested",
                statement=BREAKOUT,
                test={SCRIPT: [BREAKOUT]},
            ),
        ),
        errors=(StepError(step=SCRIPT, message=BREAKOUT),),
        artifacts=(
            artifact(folder, "a.png", swatch, section="prototypes", caption=SCRIPT, scope=name),
            artifact(folder, "b.png", swatch, section="groups", caption=BREAKOUT, values={SCRIPT: 1.0}),
            artifact(
                folder,
                "c.png",
                swatch,
                section="isolation",
                caption=SCRIPT,
                scope={"image": BREAKOUT, "class": SCRIPT, "group": BREAKOUT},
            ),
        ),
        notes={"isolation.fill": SCRIPT},
        policy=Policy(rules=(Rule(measurement="accuracy.overall", at_least=0.5, why=SCRIPT, scope=name),)),
        environment={BREAKOUT: SCRIPT},
    )
    return audited(folder, found)
