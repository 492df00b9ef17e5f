"""The watcher: it measures what it says, costs little, and leaves the training as it was."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from candling.audit.record import AuditRecord, read_record
from candling.data import Pictures
from candling.errors import DataError, ModelError, ParamsError
from candling.models import ModelSpec, build_model, save_model
from candling.statistics import proportion
from candling.vision.counterfactuals import pair_swaps
from candling.watch import Watcher
from candling.watch.watcher import weights_digest

CLASSES = ("low", "high")
CAME_WITH = {0: "dark", 1: "light"}
SIDE = 8


def pictures(each: int = 40) -> Pictures:
    """Class: whether the top half of the object is white. Environment: whether the background is light."""
    labels = torch.arange(2).repeat_interleave(2 * each)
    light = torch.arange(2).repeat(2 * each)
    images = torch.where(light == 1, 180, 60).view(-1, 1, 1, 1).repeat(1, 3, SIDE, SIDE).byte()
    images[:, :, 2:6, 2:6] = 0
    images[labels == 1, :, 2:4, 2:6] = 255
    images[labels == 0, :, 4:6, 2:6] = 255
    masks = torch.zeros(len(labels), SIDE, SIDE, dtype=torch.uint8)
    masks[:, 2:6, 2:6] = 1
    where = tuple(("dark", "light")[i] for i in light.tolist())
    groups = tuple(f"{CLASSES[c]}/{e}" for c, e in zip(labels.tolist(), where, strict=True))
    return Pictures(tuple(map(str, range(len(labels)))), images, labels, groups, where, masks)


def donors(count: int = 400) -> Pictures:
    light = torch.arange(2).repeat(count // 2)
    images = torch.where(light == 1, 180, 60).view(-1, 1, 1, 1).repeat(1, 3, SIDE, SIDE).byte()
    where = tuple(("dark", "light")[i] for i in light.tolist())
    return Pictures(("",) * count, images, torch.full((count,), -1), ("",) * count, where)


class ByObject(nn.Module):
    """Right whatever the background."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seen = 0

    def score(self, x: Tensor) -> Tensor:
        return x[:, :, 2:4, 2:6].mean((1, 2, 3)) - x[:, :, 4:6, 2:6].mean((1, 2, 3))

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        assert x.min() >= 0
        assert x.max() <= 1
        self.seen += len(x)
        score = self.score(x) * self.weight
        return torch.stack([-score, score], 1)


class ByBackground(ByObject):
    """Right where the background is that of the class."""

    def score(self, x: Tensor) -> Tensor:
        return x[:, :, 0, :].mean((1, 2)) - 120 / 255


def watcher(folder: Path, *, every: int = 10, **more: object) -> Watcher:
    settings: dict[str, object] = {"donors": donors(), "came_with": CAME_WITH, **more}
    made = settings.pop("pictures", None)
    assert made is None or isinstance(made, Pictures)
    return Watcher(folder, pictures() if made is None else made, CLASSES, every=every, **settings)  # type: ignore[arg-type]


def values(record: AuditRecord) -> dict[str, float | None]:
    return {".".join([m.id, *m.scope.values()]): m.value for m in record.measurements}


EXPECTED = {
    ByObject: {"accuracy.overall": 1.0, "accuracy.worst_group": 1.0, "accuracy.group.low/light": 1.0,
               "background.follow_rate": 0.0, "background.placebo_rate": 0.0},
    ByBackground: {"accuracy.overall": 0.5, "accuracy.worst_group": 0.0, "accuracy.group.low/light": 0.0,
                   "accuracy.group.low/dark": 1.0, "background.follow_rate": 1.0,
                   "background.placebo_rate": 0.0},
}  # fmt: skip


@pytest.mark.parametrize("kind", EXPECTED)
def test_it_measures_what_the_model_goes_by(kind: type[ByObject], tmp_path: Path) -> None:
    watch, model = watcher(tmp_path), kind()
    path = watch(model, 40, learning_rate=0.1)
    assert path == tmp_path / "step-000040" / "record.json"
    record = read_record(path)
    found = values(record)
    assert {name: found[name] for name in EXPECTED[kind]} == EXPECTED[kind]
    assert record.coordinates == {"step": 40.0, "learning_rate": 0.1}
    assert (record.audit, record.subject, record.kind, record.classes) == (
        "training",
        "step-000040",
        "vision",
        CLASSES,
    )
    overall = record.measurement("accuracy.overall")
    assert overall is not None
    expected = proportion(round(EXPECTED[kind]["accuracy.overall"] * 160), 160)
    assert (overall.n, overall.low, overall.high) == (160, round(expected.low, 8), round(expected.high, 8))
    follow = record.measurement("background.follow_rate")
    assert follow is not None
    assert (follow.n, follow.status) == (90, "ok")


def test_it_costs_a_few_hundred_evaluations(tmp_path: Path) -> None:
    watch, model = watcher(tmp_path, pictures=pictures(500)), ByObject()
    watch(model, 0)
    assert model.seen == watch.evaluations <= 400
    record = read_record(tmp_path / "step-000000")
    assert sorted({m.n for m in record.measurements if m.id == "accuracy.group"}) == [50]


def test_of_sorted_files_it_looks_at_all_not_at_the_first(tmp_path: Path) -> None:
    made = pictures(500)
    # In every group the object is there in the first files alone.
    late = torch.tensor([made.groups[:row].count(group) >= 250 for row, group in enumerate(made.groups)])
    made.images[late, :, 2:6, 2:6] = 0
    watch = watcher(tmp_path, pictures=made, donors=None, came_with=None)
    record = read_record(watch.write(ByObject(), 0))
    # A model that sees no object says low.
    found = {m.scope["group"]: (m.value, m.n) for m in record.measurements if m.id == "accuracy.group"}
    assert found == {
        "low/dark": (1.0, 50), "low/light": (1.0, 50), "high/dark": (0.5, 50), "high/light": (0.5, 50),
    }  # fmt: skip


def test_it_writes_when_due_and_once_at_the_end(tmp_path: Path) -> None:
    watch, model = watcher(tmp_path, every=3), ByObject()
    written = [step for step in range(8) if watch(model, step) is not None]
    assert written == [0, 3, 6]
    assert watch.finish(model, 7) is not None
    assert watch.finish(model, 7) is None
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"step-{s:06d}" for s in (0, 3, 6, 7)]


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    one = watcher(tmp_path / "a").write(ByBackground(), 10)
    other = watcher(tmp_path / "b").write(ByBackground(), 10)
    assert one.read_bytes() == other.read_bytes()


class Noisy(ByObject):
    """Draws from every global generator, and may fail."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5))
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        torch.rand(3), np.random.rand(3), random.random()
        if self.fails:
            raise RuntimeError("the disk is gone")
        return super().forward(self.inner(x).clamp(0, 1))


@pytest.mark.parametrize("fails", [False, True])
def test_it_leaves_no_trace(fails: bool, tmp_path: Path) -> None:
    model = Noisy(fails)
    model.train()
    model.inner[0].eval()
    model.inner[0].weight.requires_grad_(False)
    model.weight.grad = torch.full((1,), 7.0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    flags = [p.requires_grad for p in model.parameters()]
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    watch = watcher(tmp_path)
    if fails:
        with pytest.raises(RuntimeError, match="the disk is gone"):
            watch(model, 10)
        assert not list(tmp_path.iterdir())
    else:
        assert watch(model, 10) is not None
    assert [m.training for m in (model, model.inner, model.inner[0], model.inner[1])] == [
        True,
        True,
        False,
        True,
    ]
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.weight.grad.item() == 7.0
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # type: ignore[index]
    assert random.getstate() == states[2]
    assert torch.is_grad_enabled()


def test_a_training_goes_the_same_way_watched_or_not(tmp_path: Path) -> None:
    def trained(watch: Watcher | None) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(3 * SIDE**2, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 2)
        )
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        data = pictures()
        for step in range(6):
            rows = torch.randint(0, len(data), (16,))
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(data.images[rows] / 255), data.labels[rows]).backward()
            optimiser.step()
            if watch is not None:
                watch(model, step)
        return model.state_dict()

    plain, watched = trained(None), trained(watcher(tmp_path, every=2))
    assert all(torch.equal(plain[name], watched[name]) for name in plain)


def test_the_models_digest_is_that_of_its_weights_as_safetensors(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    assert weights_digest(model) == hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    tied = nn.ModuleDict({"a": model[1], "b": model[1]})
    assert weights_digest(tied) != weights_digest(model)
    spec = ModelSpec("residual_cnn", CLASSES, (16, 16), {"widths": (2, 2)})
    classifier = build_model(spec)
    save_model(classifier, tmp_path / "m")
    weights = (tmp_path / "m" / "model.safetensors").read_bytes()
    assert weights_digest(classifier) == hashlib.sha256(weights).hexdigest()


def test_a_classifier_is_watched_too(tmp_path: Path) -> None:
    classifier = build_model(ModelSpec("residual_cnn", CLASSES, (SIDE, SIDE), {"widths": (2, 2)}))
    classifier.train()
    record = read_record(watcher(tmp_path).write(classifier, 5))
    assert record.digests["model"] == weights_digest(classifier)
    assert classifier.training


def without_masks() -> Pictures:
    made = pictures()
    return Pictures(made.names, made.images, made.labels, made.groups, made.environments)


@pytest.mark.parametrize(
    ("more", "note"),
    [
        (
            {"donors": None, "came_with": None},
            "swaps need clean donors and the backgrounds that classes came with",
        ),
        ({"pictures": without_masks()}, "swaps need masks"),
        ({"came_with": {0: "dark", 1: "dark"}}, "no swap could be made"),
    ],
)
def test_without_what_swaps_need_they_are_inconclusive(
    more: dict[str, object], note: str, tmp_path: Path
) -> None:
    record = read_record(watcher(tmp_path, **more).write(ByObject(), 0))
    found = record.measurement("background.follow_rate")
    assert found is not None
    assert (found.status, found.value) == ("inconclusive", None)
    assert found.note.startswith(note)
    assert values(record)["accuracy.overall"] == 1.0


def test_small_groups_are_inconclusive(tmp_path: Path) -> None:
    record = read_record(watcher(tmp_path, pictures=pictures(10)).write(ByObject(), 0))
    group = record.measurement("accuracy.group", {"group": "low/dark"})
    assert group is not None
    assert (group.status, group.n, group.value) == ("inconclusive", 10, 1.0)


class Diverged(ByObject):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * float("nan")


class ThreeLogits(ByObject):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, [0, 1, 1]]


@pytest.mark.parametrize(
    ("model", "coordinates", "error", "words"),
    [
        (Diverged(), {}, ModelError, "NaN or infinite logits"),
        (ThreeLogits(), {}, ParamsError, r"shape \(160, 3\), the watcher was given 2 classes"),
        (ByObject(), {"loss": float("nan")}, ParamsError, "'loss' is nan"),
    ],
)
def test_what_cannot_be_measured_is_raised_and_nothing_written(
    model: nn.Module, coordinates: dict[str, float], error: type[Exception], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        watcher(tmp_path)(model, 0, **coordinates)
    assert not list(tmp_path.iterdir())


def test_two_trainings_are_not_mixed(tmp_path: Path) -> None:
    watcher(tmp_path).write(ByObject(), 0)
    with pytest.raises(ParamsError, match="holds records of a training already"):
        watcher(tmp_path)
    watcher(tmp_path, resume=True).write(ByObject(), 10)
    assert len(list(tmp_path.iterdir())) == 2


def relabelled(label: int) -> Pictures:
    made = pictures()
    return Pictures(
        made.names, made.images, torch.full_like(made.labels, label), made.groups, made.environments
    )


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"every": 0}, ParamsError, "every is 0"),
        ({"pictures": relabelled(2)}, DataError, "label 2; there are 2 classes"),
        ({"pictures": relabelled(-1)}, DataError, "label -1"),
        ({"pictures": pictures().take([])}, DataError, "got no pictures"),
        ({"donors": Pictures(("",), torch.zeros(1, 3, 4, 4).byte(), torch.tensor([-1]), ("",), ("dark",))},
         DataError, r"donors are \(3, 4, 4\), pictures \(3, 8, 8\)"),
    ],
)  # fmt: skip
def test_what_cannot_be_watched_is_refused(
    more: dict[str, object], error: type[Exception], words: str, tmp_path: Path
) -> None:
    every = int(str(more.pop("every", 10)))
    with pytest.raises(error, match=words):
        watcher(tmp_path, every=every, **more)


# --- pair_swaps -------------------------------------------------------------------------------------


@pytest.mark.parametrize("conflict", [True, False])
def test_each_object_and_each_donor_is_used_once(conflict: bool) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 3, 90).tolist()
    environments = [("a", "b", "c")[i] for i in rng.integers(0, 3, 40)]
    came_with = {-1: "a", 0: "a", 1: "b", 2: "c"}
    swaps = pair_swaps(labels, environments, came_with, classes=3, each=12, conflict=conflict)
    assert len(set(swaps.objects)) == len(set(swaps.backgrounds)) == len(swaps) > 20
    for row, background, pull in zip(swaps.objects, swaps.backgrounds, swaps.pulls, strict=True):
        assert environments[background] == came_with[pull]
        assert (pull != labels[row]) == conflict
        assert pull >= 0
    for label in range(3):
        rows = [row for row in swaps.objects if labels[row] == label]
        # In order, and of the first twelve: a row whose background ran out is passed over.
        assert rows == sorted(rows)
        assert set(rows) <= {*[i for i, k in enumerate(labels) if k == label][:12]}


def test_classes_that_share_a_background_do_not_conflict() -> None:
    swaps = pair_swaps(
        [0, 1, 2], ["a"] * 3 + ["b"] * 3, {0: "a", 1: "a", 2: "b"}, classes=3, each=1, conflict=True
    )
    assert list(zip(swaps.objects, swaps.pulls, strict=True)) == [(0, 2), (1, 2), (2, 0)]
