"""`candling plan` against what really happens: the steps are run on small models that count their images."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

import candling.models
from candling.data import DataSource, read_source
from candling.errors import DataError, ParamsError
from candling.models import Classifier, ModelSpec, build_model, load_model, save_model
from tasks import counting
from tasks import retrain as retrain_module
from tasks.attack_model import attack_eval_set
from tasks.calibration import time_import
from tasks.compute_entanglement import compute_matrix
from tasks.context import Context, read_findings
from tasks.counting import Growth
from tasks.generate_prototypes import generate
from tasks.import_data import import_data
from tasks.isolate_features import isolate_eval_set
from tasks.load_model import load
from tasks.measure_performance import measure
from tasks.plan import Plan, Step, _look, finished_after, main, plan
from tasks.retrain import retrain
from tasks.store import Stored
from tasks.test_counterfactuals import test_background as counterfactuals_step
from tasks.test_robustness import test_corruptions as robustness_step
from tasks.test_suspicions import test_suspicions as suspicions_step
from tasks.visualize_channels import visualize

CLASSES = ("cat", "dog", "egg")
SIZE = (20, 24)

QUICK = {
    "name": "quick",
    "model": "model",
    "prototypes": {"parameterisation": "fourier", "seeds": 2, "steps": 3},
    "isolation": {"images": 5, "pictures": 2},
    "robustness": {"images": 4, "severities": [2, 5]},
    "attacks": {"images": 5, "steps": 2, "epsilon": 0.012, "pictures": 2},
    "counterfactuals": {"images": 7},
}


class Told:
    """A listener that keeps what it is told."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def start(self, step: str, subject: str, total: int | None) -> None: ...
    def advance(self, step: str, subject: str, done: int, total: int) -> None: ...
    def finish(self, step: str, subject: str, hit: bool) -> None:
        self.steps.append(step)


@pytest.fixture(autouse=True)
def _two_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)


# -- Small audits ------------------------------------------------------------------------------------


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def write_mask(file: Path, size: tuple[int, int] = SIZE) -> None:
    mask = np.zeros(size, np.uint8)
    mask[4:12, 4:12] = 255
    Image.fromarray(mask).save(file)


def write_model(root: Path, size: tuple[int, int] = SIZE, **fields: Any) -> None:
    spec = ModelSpec("residual_cnn", CLASSES, size, arguments={"widths": [3, 4]}, **fields)
    save_model(build_model(spec), root / "model")


def image_folder(root: Path) -> dict[str, Any]:
    """Pictures by class, one of them of a class that the model does not know."""
    for row, name in enumerate(("cat", "cat", "cat", "dog", "dog", "egg", "fox")):
        (root / "pictures" / name).mkdir(parents=True, exist_ok=True)
        picture(row, (30, 34)).save(root / "pictures" / name / f"{row}.png")
    write_model(root)
    return {"data": {"eval": {"location": "pictures"}}}


def large_pictures(root: Path) -> dict[str, Any]:
    """So large that pictures which climb grow."""
    said = image_folder(root)
    write_model(root, (144, 160))
    prototypes = {"parameterisation": "fourier", "seeds": 1, "steps": 10}
    return {**said, "prototypes": prototypes, "channels": {"layers": ["stem"], "strongest": 1}}


def manifest(root: Path) -> dict[str, Any]:
    """Masks for some, groups, a slice, two of three classes audited, and pictures as in training."""
    (root / "pictures").mkdir()
    write_mask(root / "pictures" / "mask.png", (30, 34))
    rows = []
    for row in range(12):
        picture(row, (30, 34)).save(root / "pictures" / f"{row}.jpg")
        label = CLASSES[row % 3] if row < 11 else ""
        mask = "mask.png" if row < 8 else None
        rows.append({"path": f"{row}.jpg", "label": label, "mask": mask,
                     "group": "snow" if row % 2 else "sand", "camera": "a" if row % 4 else "b"})  # fmt: skip
    pd.DataFrame(rows).to_csv(root / "pictures" / "manifest.csv", index=False)
    pd.DataFrame(rows[:5]).drop(columns="mask").to_csv(root / "pictures" / "held_out.csv", index=False)
    write_model(root, head="multilabel")
    data = {"eval": {"location": "pictures/manifest.csv"}, "classes": ["egg", "cat"],
            "like_train": {"location": "pictures/held_out.csv"}}  # fmt: skip
    # As many heats as MACO has.
    return {
        "data": data,
        "prototypes": {"seeds": 1, "steps": 2},
        "isolation": {"images": 5, "method": "windows", "side": 9},
    }


def manifest_with_clean(root: Path) -> dict[str, Any]:
    """Each picture once more without its object, which an import carries along."""
    said = manifest(root)
    table = pd.read_csv(root / "pictures" / "manifest.csv")
    table.assign(clean=table["path"]).to_csv(root / "pictures" / "manifest.csv", index=False)
    return said


def manifest_with_channels(root: Path) -> dict[str, Any]:
    """Of one layer fewer channels than are asked for, and more pictures than there are of a class."""
    channels = {"layers": ["stages.0", "stem"], "strongest": 4, "pictures": 20, "seeds": 2}
    return {**manifest(root), "channels": channels}


def black_box(root: Path) -> dict[str, Any]:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    generator = np.random.default_rng(0)
    weight = helper.make_tensor("w", TensorProto.FLOAT, (3, 3), generator.normal(size=9).astype(np.float32))
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, *SIZE))
    y = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ("n", 3))
    graph = helper.make_graph(nodes, "tiny", [x], [y], [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(made, root / "tiny.onnx")
    said = image_folder(root)
    model = {"source": "onnx", "name": "tiny.onnx", "classes": list(CLASSES), "head": "softmax",
             "output": "logits", "image_size": list(SIZE)}  # fmt: skip
    return {**said, "model": model, "channels": {"layers": ["stem"]}}


def own_form(root: Path, start: str = "before") -> dict[str, Any]:
    """All that there can be: masks, clean pictures, donors, training data, two retrained subjects."""
    folder = root / "data"
    folder.mkdir()
    write_mask(folder / "mask.png")
    places = ("snow", "sand", "sea")

    def digest(name: str) -> str:
        return hashlib.sha256((folder / name).read_bytes()).hexdigest()

    def split(name: str, rows: list[tuple[str, str]], *, objects: bool) -> None:
        table = []
        for row, (label, place) in enumerate(rows):
            path = f"{name}-{row}.png"
            picture(row).save(folder / path)
            line = {"path": path, "label": label, "group": f"{label}/{place}", "environment": place,
                    "sha256": digest(path)}  # fmt: skip
            if objects:
                line |= {"mask": "mask.png", "mask_sha256": digest("mask.png")}
                line |= {"clean": path, "clean_sha256": digest(path)}
                line |= {"slice.site": ""}  # says nothing, so that there are no slices still
            table.append(line)
        pd.DataFrame(table).to_parquet(folder / f"{name}.parquet")

    split("eval", [(CLASSES[i % 3], places[i % 2]) for i in range(13)], objects=True)
    split("history", [(CLASSES[i % 3], places[i % 3]) for i in range(9)], objects=False)
    split("empty", [("", places[i % 3]) for i in range(10)], objects=False)
    # What has no label is not trained on.
    split("more", [("", "sea"), *((CLASSES[i % 3], places[i % 2]) for i in range(7))], objects=False)
    write_model(root)
    return {
        "gate": "after",
        "data": {"folder": "data", "eval": "eval", "train": "history", "donors": "empty",
                 "like_train": "history", "classes": list(CLASSES)},
        "train": {"split": "history", "image_size": list(SIZE), "arguments": {"widths": [3, 5]},
                  "schedule": {"steps": 2}},
        "retrain": {"start": start, "schedule": {"steps": 5, "batch": 4},
                    "subjects": {"control": "history", "after": "more"}},
        "isolation": {"images": 4, "method": "windows", "side": 10, "stride": 7, "donors_per_image": 3,
                      "pictures": 3},
    }  # fmt: skip


def from_scratch(root: Path) -> dict[str, Any]:
    said = own_form(root, "scratch")
    return said | {"data": said["data"] | {"classes": ["egg", "cat"]}}


AUDITS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "an image folder": image_folder,
    "large pictures": large_pictures,
    "a manifest with masks, groups and slices": manifest,
    "a manifest with clean pictures": manifest_with_clean,
    "a manifest and channels": manifest_with_channels,
    "a black box": black_box,
    "all that there can be": own_form,
    "retrained from scratch": from_scratch,
}


def made(root: Path, case: str) -> Context:
    file = root / "params.yaml"
    file.write_text(yaml.safe_dump(QUICK | AUDITS[case](root)))
    return Context.of(root, file)


# -- What really happens -----------------------------------------------------------------------------


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Images through every model that is loaded or made from now on, by kind of pass."""
    seen: Counter[str] = Counter()

    def count(model: Classifier, inputs: tuple[torch.Tensor, ...]) -> None:
        gradients = torch.is_grad_enabled() and (inputs[0].requires_grad or model.training)
        seen["backward" if gradients else "forward"] += len(inputs[0])

    def counting(make: Callable[..., Classifier]) -> Callable[..., Classifier]:
        def wrapped(*arguments: Any, **named: Any) -> Classifier:
            model = make(*arguments, **named)
            model.register_forward_pre_hook(count)
            return model

        return wrapped

    monkeypatch.setattr(candling.models, "load_model", counting(load_model))
    monkeypatch.setattr(retrain_module, "fresh", counting(retrain_module.fresh))
    return seen


Passes = dict[tuple[str, str], tuple[int, int]]


def really(context: Context, seen: Counter[str]) -> tuple[Passes, dict[str, str], list[Stored]]:
    """Run every step as the flow does: passes of each, notes on what was left out, and all results."""
    found: Passes = {}
    results: list[Stored] = []

    def run(task: Any, subject: str, *arguments: Any) -> Any:
        seen.clear()
        result = task.fn(*arguments)
        found[subject, task.name] = seen["forward"], seen["backward"]
        return result

    first = load.fn(context, context.params.first_subject)
    context = replace(context, dataset=import_data.fn(context, first))
    subjects = [first]
    for name in context.params.retrain.subjects if context.params.retrain else ():
        subjects.append(run(retrain, name, context, name, first))
    for subject in subjects:
        prototypes = run(generate, subject.name, context, subject)
        entangled = run(compute_matrix, subject.name, context, subject, prototypes)
        results += [prototypes, entangled, run(attack_eval_set, subject.name, context, subject, entangled)]
        if context.params.channels is not None:
            results.append(run(visualize, subject.name, context, subject))
        isolated = run(isolate_eval_set, subject.name, context, subject)
        results += [isolated, run(suspicions_step, subject.name, context, subject, isolated)]
        for task in (counterfactuals_step, measure, robustness_step):
            results.append(run(task, subject.name, context, subject))
    notes: dict[str, str] = {}
    for stored in results:
        notes |= read_findings(stored.path).notes
    out = {key.removeprefix("left_out."): text for key, text in notes.items() if key.startswith("left_out.")}
    return found, out, results


def planned(found: Plan) -> Passes:
    skipped = (load.name, import_data.name)
    return {step.key: (step.forward, step.backward) for step in found.steps if step.step not in skipped}


@pytest.mark.parametrize("case", AUDITS)
def test_the_plan_is_what_happens(tmp_path: Path, case: str, passes: Counter[str]) -> None:
    context, told = made(tmp_path, case), Told()
    found = plan(context, told, seconds=0)
    assert told.steps == ["load model", "calibrate"]
    assert not (tmp_path / "reports").exists()
    assert [path.name for path in (tmp_path / ".candling" / "store").iterdir() if any(path.iterdir())] == [
        "load-model"
    ]
    happened, left_out, results = really(context, passes)
    open_ended = (isolate_eval_set.name, suspicions_step.name, attack_eval_set.name)
    exact = {key: pair for key, pair in happened.items() if key[1] not in open_ended}
    assert {key: planned(found)[key] for key in exact} == exact
    assert planned(found).keys() == happened.keys()
    # Where evidence lies, what is suspected, and when an attack has fooled, only the model can tell.
    for key in happened.keys() - exact.keys():
        counted, came = sum(planned(found)[key]), sum(happened[key])
        assert (came > 0) == (counted > 0)
        assert came <= counted
    assert found.left_out == left_out
    assert found.forward + found.backward == sum(map(sum, planned(found).values())) > 0
    assert all(step.seconds > 0 for step in found.steps if not step.stored)
    artifacts = [one for stored in results for one in read_findings(stored.path).artifacts]
    assert found.written >= len(artifacts)

    # What was done is not planned again.
    told = Told()
    again = plan(context, told, seconds=0)
    assert told.steps == ["load model"]
    assert all(step.stored for step in again.steps)
    assert again.steps != found.steps
    assert (again.forward, again.backward, again.disk.store, again.disk.tracking) == (0, 0, 0, 0)
    assert again.left_out == left_out


def test_imports_are_counted_and_told(tmp_path: Path) -> None:
    context = made(tmp_path, "an image folder")
    found = plan(context, Told(), seconds=0)
    (step,) = (step for step in found.steps if step.step == "import data")
    assert (step.subject, step.pictures, step.stored) == ("eval", 6, False)
    assert "6 pictures of 3 classes: cat 3, dog 2, egg 1." in found.notes["data.eval"]
    assert "1 picture left out because no class has the label: fox 1." in found.notes["data.eval"]
    json.dumps(found.to_dict(), allow_nan=False)
    really(context, Counter())
    again = plan(context, Told(), seconds=0)
    assert again.notes == found.notes
    assert [step.pictures for step in again.steps] == [0] * len(again.steps)


def test_many_pictures_are_not_read_to_look_for_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = made(tmp_path, "an image folder")
    first = plan(context, Told(), seconds=0)
    really(context, Counter())
    monkeypatch.setattr("tasks.plan._LOOKED_UP", 6)
    found = plan(context, Told(), seconds=0)
    assert "all of 7 pictures" in found.notes["store"]
    assert planned(found) == planned(first)


@pytest.mark.parametrize("case", ["an image folder", "retrained from scratch"])
def test_after_a_change_of_settings_only_what_it_reaches_is_planned(tmp_path: Path, case: str) -> None:
    context = made(tmp_path, case)
    really(context, Counter())
    changed = context.params.isolation.model_copy(update={"images": 3})
    context = replace(context, params=context.params.model_copy(update={"isolation": changed}))
    found = plan(context, Told(), seconds=0)
    missing = [(step.subject, step.step) for step in found.steps if not step.stored]
    reached = ("isolate features", "test suspicions")
    assert missing == [(subject, step) for subject in context.params.subjects for step in reached]


def test_steps_on_small_pictures_cost_less(tmp_path: Path) -> None:
    context = made(tmp_path, "large pictures")
    first = load.fn(context, "model")
    model = load_model(first.folder, root=tmp_path)
    small = _look(context, first, model).sight
    whole = replace(small, growth=Growth())
    for count in (counting.prototypes, counting.channels):
        with_growth, without = count(small), count(whole)
        # In parts of the whole size, though more small pictures are seen at once, blanks among them.
        assert with_growth.backward >= without.backward > with_growth.backward - with_growth.saved
        assert without.saved == 0
        assert with_growth.forward > without.forward  # the model is asked which sizes it takes
    stages = small.growth.stages
    assert sum(steps for _, steps in stages) == 10
    assert stages[-1][0] == (144, 160)


def test_disk_is_about_what_the_store_takes(tmp_path: Path) -> None:
    context = made(tmp_path, "an image folder")
    found = plan(context, Told(), seconds=0)
    store = context.root / ".candling" / "store"

    def size() -> int:
        return sum(f.stat().st_size for f in store.rglob("*") if f.suffix in (".png", ".jpg"))

    before = size()
    really(context, Counter())
    assert found.disk.store == pytest.approx(size() - before, rel=0.5)


# -- Errors ------------------------------------------------------------------------------------------


def spoil_label(root: Path) -> None:
    table = pd.read_parquet(root / "data" / "eval.parquet")
    table.loc[0, "label"] = "fox"
    table.to_parquet(root / "data" / "eval.parquet")


def spoil_picture(root: Path) -> None:
    (root / "data" / "eval-0.png").unlink()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(spoil_label, "eval.parquet: label 'fox' is none of"), (spoil_picture, "eval-0.png: named in")],
)
def test_bad_data_are_told_of_the_file_that_a_person_knows(
    tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    context = made(tmp_path, "all that there can be")
    spoil(tmp_path)
    with pytest.raises(DataError, match=f"^{tmp_path}/data/{words}"):
        plan(Context.of(tmp_path, context.file), Told(), seconds=0)


def test_rules_that_need_masks_are_refused_before_anything_runs(tmp_path: Path) -> None:
    context = made(tmp_path, "an image folder")
    rule = {"measurement": "object_evidence.share", "at_least": 0.5, "scope": {"class": "cat"}}
    text = yaml.safe_load(context.file.read_text()) | {"policy": {"rules": [rule]}}
    context.file.write_text(yaml.safe_dump(text))
    with pytest.raises(ParamsError, match="needs masks"):
        plan(Context.of(tmp_path, context.file), Told(), seconds=0)


def test_layers_that_are_not_there_are_told_before_anything_runs(tmp_path: Path) -> None:
    context = made(tmp_path, "an image folder")
    text = yaml.safe_load(context.file.read_text()) | {"channels": {"layers": ["stages.0", "stages.o"]}}
    context.file.write_text(yaml.safe_dump(text))
    with pytest.raises(
        ParamsError, match=r"^channels: layers: the model has no layer 'stages\.o'; the nearest"
    ):
        plan(Context.of(tmp_path, context.file), Told(), seconds=0)


def test_main_checks_params_and_model_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = made(tmp_path, "an image folder")
    monkeypatch.setattr("tasks.plan.ROOT", tmp_path)
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(ParamsError, match=r"no model\.safetensors here"):
        main(context.file, Told())
    context.file.write_text("name: quick\nmodle: x\n")
    with pytest.raises(ParamsError, match="modle"):
        main(context.file, Told())
    assert not (tmp_path / ".candling").exists()


# -- Time --------------------------------------------------------------------------------------------


def steps(*rows: tuple[str, float, str]) -> list[Step]:
    """Steps by name, with seconds and the names of those that each waits for."""
    return [
        Step("s", name, seconds=seconds, after=tuple(("s", other) for other in after.split()))
        for name, seconds, after in rows
    ]


SCHEDULES: dict[str, tuple[list[Step], int, float, float]] = {
    "nothing": ([], 2, 1.0, 0.0),
    "one slot takes the sum": (steps(("a", 3, ""), ("b", 4, ""), ("c", 5, "")), 1, 0.5, 12.0),
    "side by side": (steps(("a", 3, ""), ("b", 4, "")), 2, 1.0, 4.0),
    "a chain": (steps(("a", 3, ""), ("b", 4, "a"), ("c", 5, "b")), 4, 1.0, 12.0),
    "the first that is ready first": (
        steps(("a", 3, ""), ("b", 9, "a"), ("c", 4, ""), ("d", 2, "")), 2, 1.0, 12.0,
    ),
    "alone is faster": (steps(("a", 4, ""), ("b", 10, "")), 2, 0.5, 4 + 6 * 0.5),
    "in between": (steps(("a", 4, ""), ("b", 4, "")), 3, 0.5, 3.0),
    "what is stored takes no time": (
        [Step("s", "a", stored=True), *steps(("b", 4, "a"))], 2, 1.0, 4.0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SCHEDULES)
def test_steps_take_turns(case: str) -> None:
    given, slots, alone, expected = SCHEDULES[case]
    assert finished_after(given, slots, alone) == pytest.approx(expected)


def test_more_slots_never_take_longer_than_the_sum_nor_less_than_the_longest_chain() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        rows = [(str(i), float(rng.uniform(1, 9)), str(rng.integers(i)) if i and rng.random() < 0.5 else "")
                for i in range(8)]  # fmt: skip
        ends: dict[str, float] = {}
        for name, seconds, after in rows:
            ends[name] = seconds + ends.get(after, 0.0)
        total = sum(seconds for _, seconds, _ in rows)
        for slots in (1, 2, 3, 8):
            took = finished_after(steps(*rows), slots)
            assert max(max(ends.values()), total / slots) - 1e-9 <= took <= total + 1e-9
        assert finished_after(steps(*rows), 8) == pytest.approx(max(ends.values()))


def test_pictures_that_cannot_be_read_say_nothing_of_time(tmp_path: Path) -> None:
    said = image_folder(tmp_path)
    model = load_model(tmp_path / "model")
    samples = read_source(DataSource(tmp_path / said["data"]["eval"]["location"]))
    whole = time_import(samples, model)
    assert whole.seconds > 0
    # Noise cannot be compressed.
    assert whole.size == pytest.approx(3 * SIZE[0] * SIZE[1], rel=0.2)
    for file in (tmp_path / "pictures").rglob("*.png"):
        file.write_bytes(b"no picture")
    assert time_import(samples, model).seconds == 0
