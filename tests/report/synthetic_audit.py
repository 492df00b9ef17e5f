"""A made-up tank audit: small drawn pictures and plausible numbers, and records with troubles in them."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
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
            "isolation.method": "Hierarchical(donors=480 pictures)",
            "isolation.images": "96, stratified",
        },
        "policy": POLICY,
        "environment": {"device": "cpu", "python": "3.11.7", "torch": "2.14.0"},
    }
    return AuditRecord(**(fields | changes))


# An audit of somebody's own model: 9 of its classes, 26 pictures, no masks, no groups, no training data.
OWN_CLASSES = (
    "goldfish", "zebra", "banana", "school bus", "great white shark, white shark, man-eater", "flamingo",
    "ice cream, icecream", "pizza, pizza pie", "parking meter",
)  # fmt: skip
OWN_LEFT_OUT = {
    "masks": "Without masks it is not known how much of the evidence lies on the object.",
    "groups": "Without groups there is no accuracy of the worst group.",
    "training": "Without training data nothing was retrained, so no finding was tested by a repair.",
}
OWN_DATA = {
    "quarantined": "1 of 28 pictures could not be read: broken.jpg is truncated.",
    "unmapped": "1 of 28 pictures is labelled 'dog', which is none of the model's classes.",
    "converted": "2 grey pictures and 1 in CMYK were converted to RGB.",
}
CORRUPTIONS = ("noise", "blur", "contrast", "brightness", "jpeg")


def own_measurements(*, seed: int = 0, images: int = 26) -> list[Measurement]:
    rng = np.random.default_rng(seed)
    few = {"status": "inconclusive", "note": f"{images} are too few"} if images < 100 else {}

    def share(id: str, value: float, n: int, /, **scope: str) -> Measurement:
        marked = few if n < 30 else {}
        width = 0.98 / max(n, 1) ** 0.5
        return Measurement(id=id, scope=scope, n=n, **interval(value, width, 0.0, 1.0), **marked)

    found = [
        share("accuracy.overall", 0.692, images),
        share("accuracy.worst_slice", 0.5, 6).model_copy(update={"note": "object is small"}),
        share("calibration.error", 0.081, images),
        Measurement(id="calibration.overconfidence", n=images, **interval(-0.031, 0.16, -1.0, 1.0)),
        share("confusion.strongest_pair", 0.667, 3).model_copy(update={"note": "ice cream → pizza"}),
        Measurement(id="robustness.mean", n=images, **interval(0.672, 0.15, 0.0, 2.0)),
        share("robustness.worst", 0.154, images).model_copy(update={"note": "noise at severity 5"}),
        Measurement(id="data.quarantined", value=1 / 28, low=1 / 28, high=1 / 28, n=28),
        Measurement(id="data.unmapped", value=1 / 28, low=1 / 28, high=1 / 28, n=28),
        Measurement(id="entanglement.strongest_pair", n=4, **interval(0.613, 0.12, -9.0, 9.0)),
    ]
    for number, name in enumerate(OWN_CLASSES):
        found.append(share("accuracy.class", (number % 4) / 3, 3, **{"class": name}))
        found.append(
            share("prototype.probability_unseen_transforms", 0.5 + number / 20, 4, **{"class": name})
        )
        found.append(share("prototype.trust", 0.4 + number / 20, 4, **{"class": name}))
        found.append(share("prototype.agreement", 0.35 + number / 20, 4, **{"class": name}))
    for column, value, accuracy in (
        ("object", "small", 0.5),
        ("object", "large", 0.75),
        ("indoor", "yes", 0.6),
    ):
        found.append(share("accuracy.slice", accuracy, images // 3, slice=column, value=value))
    ends = np.linspace(0.2, 1.0, 3 if images < 100 else 11)
    for low, high in zip(ends, ends[1:], strict=False):
        scope = {"bin": f"{low:.2f}–{high:.2f}"}
        middle, n = float(low + high) / 2, images // (len(ends) - 1)
        right = float(np.clip(middle + rng.normal(0, 0.06), 0, 1))
        found.append(share("calibration.bin_accuracy", right, n, **scope))
        found.append(Measurement(id="calibration.bin_confidence", scope=scope, value=middle, n=n))
    for number, name in enumerate(OWN_CLASSES):
        own = (number % 4) / 3
        for other in (*OWN_CLASSES, "another class"):
            taken = other == OWN_CLASSES[(number + 1) % 9]
            value = own if other == name else 1 - own if taken else 0.0
            found.append(share("confusion.rate", value, 3, **{"from": name, "to": other}))
    found.append(share("robustness.accuracy", 0.692, images, corruption="none", severity="0"))
    for row, name in enumerate(CORRUPTIONS):
        for severity in range(1, 6):
            value = max(0.69 - severity * (0.11 - 0.02 * row), 0.1)
            scope = {"corruption": name, "severity": str(severity)}
            found.append(share("robustness.accuracy", value, images, **scope))
    for one in OWN_CLASSES:
        for other in OWN_CLASSES:
            if one != other:
                value = float(rng.normal(-0.05, 0.25))
                found.append(
                    Measurement(
                        id="entanglement.directed",
                        scope={"from": one, "to": other},
                        n=4,
                        **interval(value, 0.1, -9.0, 9.0),
                    )
                )
    return found


def speckled(seed: int, side: int) -> Image.Image:
    """A scene of any size, as hard to compress as a photograph."""
    rng = np.random.default_rng(seed)
    base = scene(list(ENVIRONMENTS)[seed % 4], seed, tank=seed % 2 == 0).resize((side, side), 3)
    noise = Image.fromarray(rng.integers(0, 256, (side, side, 3)).astype(np.uint8))
    return Image.blend(base, noise, 0.06)


def own_pictures(folder: Path, *, side: int, images: int = 26) -> list[Artifact]:
    found = []
    for number, name in enumerate(OWN_CLASSES):
        for seed in range(4):
            found.append(
                artifact(
                    folder,
                    f"prototypes/{number}-{seed}.png",
                    speckled(10 * number + seed, side),
                    section="prototypes",
                    caption=f"prototype of {name}, seed {seed}",
                    scope={"class": name, "seed": str(seed)},
                    values={"probability": 0.91 - seed / 100, "agreement": 0.52, "trust": 0.66 - seed / 50},
                )
            )
    for number in range(images):
        image = f"{number:05d}"
        original = speckled(100 + number, side)
        found.append(
            artifact(
                folder,
                f"isolation/{image}.png",
                original,
                section="isolation",
                scope={"image": image, "view": "original"},
            )
        )
        for rank in range(2):
            name = OWN_CLASSES[(number + rank) % 9]
            white = Image.new("RGB", original.size, (255, 255, 255))
            shade = Image.new("L", (96, 96), 0)
            ImageDraw.Draw(shade).ellipse((20, 30, 70, 80) if rank else (30, 40, 90, 85), fill=255)
            shade = shade.filter(ImageFilter.GaussianBlur(6)).resize(original.size)
            found.append(
                artifact(
                    folder,
                    f"isolation/{image}-{rank}.png",
                    Image.composite(original, white, shade),
                    section="isolation",
                    caption=f"evidence for {name}, p = {0.9 - rank * 0.85:.3f}",
                    scope={"image": image, "class": name},
                    values={"probability": 0.9 - rank * 0.85},
                )
            )
    return found


OWN_LAYERS = ("features.14", "features.18")


def channel_pictures(folder: Path, *, side: int, channels: int = 6, images: int = 4) -> list[Artifact]:
    """Of two layers some channels, each with an optimised picture and the images that excite it."""
    found = []
    for place, layer in enumerate(OWN_LAYERS):
        for channel in range(channels):
            number = 137 * channel + place
            scope = {"layer": layer, "channel": str(number)}
            found.append(
                artifact(
                    folder,
                    f"channels/{place}-{number}.png",
                    grown(number, tank=False, subject="own").resize((side, side)),
                    section="channels",
                    caption="optimised",
                    scope={**scope, "view": "optimised", "seed": "0"},
                    values={
                        "activation": 4.25 - channel / 8,
                        "evidence_over_average": 6.2 / (channel + 1),
                        "usual_activation": 0.21,
                    },
                )
            )
            for row in range(images):
                name = OWN_CLASSES[(channel + row // 2) % 9]
                found.append(
                    artifact(
                        folder,
                        f"channels/{place}-{number}-{row}.png",
                        speckled(100 + channel + row, side),
                        section="channels",
                        caption=name,
                        scope={**scope, "view": "eval", "image": f"{channel + row:05d}", "class": name},
                        values={"activation": 1.5 - row / 16},
                    )
                )
    return found


def own(folder: Path, *, side: int = 16, images: int = 26, **changes: Any) -> AuditRecord:
    """The record of an audit of somebody's own model: one subject, called `model`."""
    fields: dict[str, Any] = {
        "audit": "imagenet-mobilenet",
        "title": "MobileNetV2 on photographs of nine of its classes",
        "classes": OWN_CLASSES,
        "measurements": tuple(own_measurements(images=images)),
        "artifacts": (*own_pictures(folder, side=side), *channel_pictures(folder, side=side)),
        "notes": {
            "isolation.method": "Hierarchical(fill='blur')",
            "prototypes.trust": "geometric mean of the probability under unseen transforms, over chance, "
            "and the agreement over seeds",
            "channels.strongest": "of each layer the 6 channels that carry most of the evidence for the "
            "classes predicted for 26 eval pictures",
            **{f"left_out.{key}": value for key, value in OWN_LEFT_OUT.items()},
            **{f"data.{key}": value for key, value in OWN_DATA.items()},
        },
        "policy": Policy(
            rules=(
                Rule(measurement="accuracy.overall", at_least=0.6),
                Rule(measurement="robustness.mean", at_least=0.5, min_n=20),
            )
        ),
    }
    return record(folder, "model", **(fields | changes))


# An audit of a small model of which every class was audited, at three severities, with small groups.
SMALL_CLASSES = ("no_tank", "tank", "armoured_recovery_vehicle")
SMALL_GROUPS = {"no_tank/snow": 1, "tank/grass": 3, "tank/snow": 1, "tank/forest": 1}


def small_measurements(classes: tuple[str, ...], *, others: float = 0.0) -> list[Measurement]:
    """`others`: the share of each class' pictures that the model takes for a class not audited."""
    found = [Measurement(id="accuracy.overall", n=90, **interval(0.7, 0.09, 0.0, 1.0))]
    for one in classes:
        for other in (*classes, "another class"):
            right = 1 - others - 6.1e-05 * (len(classes) - 1)
            value = right if other == one else others if other == "another class" else 6.1e-05
            scope = {"from": one, "to": other}
            found.append(
                Measurement(id="confusion.rate", scope=scope, n=90, **interval(value, 0.04, 0.0, 1.0))
            )
            if other in classes and one != other:
                found.append(
                    Measurement(
                        id="entanglement.directed", scope=scope, n=8, **interval(-6.1e-05, 2e-05, -9.0, 9.0)
                    )
                )
    for name in CORRUPTIONS:
        for severity in (1, 3, 5):
            scope = {"corruption": name, "severity": str(severity)}
            value = 6.1e-05 if (name, severity) == ("noise", 5) else 0.7 - 0.1 * severity
            found.append(
                Measurement(id="robustness.accuracy", scope=scope, n=90, **interval(value, 0.09, 0.0, 1.0))
            )
    return found


def small_record(measurements: Iterable[Measurement], **changes: Any) -> AuditRecord:
    """A record of these measurements, and little else."""
    fields: dict[str, Any] = {
        "audit": "small", "subject": "model", "kind": "vision", "digests": {"model": "0", "data.eval": "1"},
        "environment": {}, "measurements": tuple(measurements),
    }  # fmt: skip
    return AuditRecord(**{**fields, **changes})


def small_pictures(folder: Path) -> list[Artifact]:
    found = []
    for group, images in SMALL_GROUPS.items():
        name, place = group.split("/")
        for number in range(images):
            image = f"{name}-{place}-{number}"
            original = scene(place, number, tank=name == "tank")
            views = {"original": ({"view": "original"}, original)} | {
                one: ({"class": one}, faded(original, sky=one == "no_tank")) for one in SMALL_CLASSES[:2]
            }
            for view, (more, drawn) in views.items():
                found.append(
                    artifact(
                        folder,
                        f"isolation/{image}-{view}.png",
                        drawn,
                        section="isolation",
                        scope={"image": image, "group": group, **more},
                        values={} if view == "original" else {"probability": 0.5},
                    )
                )
    return found


def small(
    folder: Path, *, classes: tuple[str, ...] = SMALL_CLASSES, others: float = 0.0, **changes: Any
) -> AuditRecord:
    """The record of an audit of a small model, with few pictures of each group."""
    fields: dict[str, Any] = {
        "audit": "small",
        "title": "Three classes, all of them audited",
        "classes": classes,
        "measurements": tuple(small_measurements(classes, others=others)),
        "artifacts": tuple(small_pictures(folder)),
        "policy": Policy(rules=(Rule(measurement="accuracy.overall", at_least=0.6),)),
    }
    return record(folder, "model", **(fields | changes))


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
            Measurement(id="confusion.rate", scope=pair, value=0.5, n=3, note=SCRIPT),
            Measurement(id="accuracy.class", scope=name, value=0.5),
            Measurement(id="accuracy.slice", scope={"slice": SCRIPT, "value": BREAKOUT}, value=0.5),
            Measurement(id="calibration.bin_accuracy", scope={"bin": BREAKOUT}, value=0.5),
            Measurement(id="calibration.bin_confidence", scope={"bin": BREAKOUT}, value=0.5),
            Measurement(
                id="robustness.accuracy", scope={"corruption": SCRIPT, "severity": BREAKOUT}, value=0.5
            ),
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
            artifact(
                folder,
                "d.png",
                swatch,
                section="channels",
                caption=BREAKOUT,
                scope={"layer": SCRIPT, "channel": BREAKOUT, "view": "optimised"},
                values={BREAKOUT: 1.0},
            ),
            artifact(folder, "e.png", swatch, section="channels", caption=SCRIPT, scope={"layer": BREAKOUT}),
        ),
        notes={
            "isolation.method": SCRIPT,
            "channels.strongest": BREAKOUT,
            "prototypes.trust": SCRIPT,
            f"left_out.{SCRIPT}": BREAKOUT,
            f"data.{BREAKOUT}": SCRIPT,
        },
        policy=Policy(rules=(Rule(measurement="accuracy.overall", at_least=0.5, why=SCRIPT, scope=name),)),
        environment={BREAKOUT: SCRIPT},
    )
    return audited(folder, found)
