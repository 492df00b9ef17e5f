"""The scenes: the same seed gives the same bytes, and each factor moves alone."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from candling.vision.scenes import (
    CLASSES,
    ENVIRONMENTS,
    OBJECTS,
    PARTS,
    Scene,
    Split,
    contact_sheet,
    draw,
    plan_split,
    write_splits,
)
from candling.vision.scenes.backdrop import ground_share, horizon_line

SCENE = Scene(12, "tank", "overcast")


def ground_rows(seed: int, size: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """Pixels wholly below, and pixels wholly above the horizon."""
    share = ground_share(horizon_line(seed, size))
    return share == 1, share == 0


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- one picture -------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("label", CLASSES)
def test_same_scene_same_bytes(label: str, environment: str) -> None:
    first, second = (draw(Scene(3, label, environment)) for _ in range(2))
    assert first.image.shape == (96, 96, 3)
    assert first.image.dtype == np.uint8
    assert first.mask.shape == (96, 96)
    assert first.mask.dtype == np.uint8
    assert first.image.tobytes() == second.image.tobytes()
    assert first.mask.tobytes() == second.mask.tobytes()


def test_other_seed_other_picture() -> None:
    assert not np.array_equal(draw(SCENE).image, draw(replace(SCENE, seed=13)).image)


def test_drawing_leaves_the_global_random_state_alone() -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    draw(SCENE)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index, union-attr]


@pytest.mark.parametrize("size", [32, 64, 128])
def test_other_sizes_show_the_same_object(size: int) -> None:
    small, usual = draw(SCENE, size), draw(SCENE)
    assert small.image.shape == (size, size, 3)
    # A pixel that is only touched counts as object, so small pictures cover a little more.
    assert (small.mask > 0).mean() == pytest.approx((usual.mask > 0).mean(), abs=0.04)


def test_tanks_cover_enough_and_show_all_their_parts() -> None:
    for seed in range(200):
        mask = draw(Scene(seed, "tank", ENVIRONMENTS[seed % 4])).mask
        assert 0.08 <= (mask > 0).mean() <= 0.35, seed
        assert set(np.unique(mask)) == {0, 1, 2, 3, 4}, seed
        assert PARTS[int(np.bincount(mask[mask > 0]).argmax()) - 1] != "barrel", seed


@pytest.mark.parametrize("kind", [kind for kind in OBJECTS if kind != "tank"])
def test_other_objects_cover_as_much_and_are_one_part(kind: str) -> None:
    for seed in range(25):
        mask = draw(Scene(seed, "no_tank", "grass", object=kind)).mask
        assert 0.08 <= (mask > 0).mean() <= 0.35, seed
        assert set(np.unique(mask)) == {0, 5}, seed


def test_size_and_place_do_not_tell_the_class() -> None:
    found = {
        label: np.array(
            [
                [(mask > 0).mean(), *np.argwhere(mask > 0).mean(axis=0) / 96]
                for mask in (draw(Scene(seed, label, "snow")).mask for seed in range(80))
            ]
        )
        for label in CLASSES
    }
    difference = found["tank"].mean(axis=0) - found["no_tank"].mean(axis=0)
    assert np.abs(difference).max() < 0.09


# --- factors -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sky", ENVIRONMENTS[1:])
def test_the_sky_leaves_ground_and_object_alone(sky: str) -> None:
    before, after = draw(SCENE), draw(replace(SCENE, sky=sky))
    ground, above = ground_rows(SCENE.seed)
    assert np.array_equal(before.mask, after.mask)
    assert np.array_equal(before.image[ground], after.image[ground])
    assert (before.image[above] != after.image[above]).any(axis=-1).mean() > 0.5


@pytest.mark.parametrize("ground", ENVIRONMENTS[1:])
def test_the_ground_leaves_the_sky_alone(ground: str) -> None:
    before, after = draw(SCENE), draw(replace(SCENE, ground=ground))
    _, above = ground_rows(SCENE.seed)
    assert np.array_equal(before.mask, after.mask)
    assert np.array_equal(before.image[above], after.image[above])


def test_the_environment_leaves_the_heart_of_the_object_alone() -> None:
    pictures = [draw(replace(SCENE, environment=name)) for name in ENVIRONMENTS]
    held = pictures[0].mask > 0
    # The rim blends with what is behind it.
    inner = held[1:-1, 1:-1] & held[:-2, 1:-1] & held[2:, 1:-1] & held[1:-1, :-2] & held[1:-1, 2:]
    for picture in pictures[1:]:
        same = (picture.image == pictures[0].image).all(axis=-1)[1:-1, 1:-1]
        assert same[inner].mean() > 0.97


def test_both_factors_overridden_are_the_other_environment() -> None:
    both = draw(replace(SCENE, sky="snow", ground="snow"))
    assert np.array_equal(both.image, draw(replace(SCENE, environment="snow")).image)


@pytest.mark.parametrize("label", CLASSES)
def test_a_clean_scene_lacks_the_object_and_its_shadow_only(label: str) -> None:
    for seed in range(12):
        scene = Scene(seed, label, "grass")
        whole, clean = draw(scene), draw(replace(scene, object=None))
        assert not clean.mask.any()
        outside = whole.mask == 0
        _, above = ground_rows(seed)
        assert np.array_equal(whole.image[outside & above], clean.image[outside & above])
        assert (whole.image[outside] <= clean.image[outside]).all()  # a shadow only darkens
        changed = (whole.image != clean.image).any(axis=-1)
        assert changed[~outside].mean() > 0.9
        assert changed[outside].mean() < 0.2


def test_clean_scenes_are_the_same_for_both_classes() -> None:
    tank, other = (draw(Scene(5, label, "forest", object=None)).image for label in CLASSES)
    assert np.array_equal(tank, other)


def test_distractors_leave_the_mask_alone() -> None:
    pairs = [
        [draw(Scene(seed, "tank", "snow", distractors=wanted)) for wanted in (True, False)]
        for seed in range(8)
    ]
    assert all(np.array_equal(first.mask, second.mask) for first, second in pairs)
    assert any(not np.array_equal(first.image, second.image) for first, second in pairs)


def test_a_tint_multiplies_the_colours() -> None:
    plain, red = draw(SCENE).image, draw(replace(SCENE, tint=(1.2, 1.0, 0.5))).image
    assert np.array_equal(plain[..., 1], red[..., 1])
    assert red[..., 0].mean() > 1.1 * plain[..., 0].mean()
    assert red[..., 2].mean() == pytest.approx(plain[..., 2].mean() / 2, rel=0.03)


def test_auto_draws_each_of_the_other_objects() -> None:
    kinds = [kind for kind in OBJECTS if kind != "tank"]
    found = Counter[str]()
    for seed in range(30):
        auto = draw(Scene(seed, "no_tank", "snow")).image
        named = {kind: draw(Scene(seed, "no_tank", "snow", object=kind)).image for kind in kinds}
        found.update(kind for kind in kinds if np.array_equal(named[kind], auto))
    assert set(found) == set(kinds)
    assert found.total() == 30


def test_an_object_can_be_named_against_the_label() -> None:
    named = draw(Scene(4, "no_tank", "snow", object="tank"))
    assert np.array_equal(named.image, draw(Scene(4, "tank", "snow")).image)


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"seed": -4}, "-4"),
        ({"label": "submarine"}, "submarine"),
        ({"environment": "desert"}, "desert"),
        ({"sky": "night"}, "night"),
        ({"ground": "sea"}, "sea"),
        ({"object": "zeppelin"}, "zeppelin"),
        ({"tint": (1.0, 0.0, 1.0)}, "0.0"),
        ({"label": ""}, "name an object"),
    ],
)
def test_an_unusable_scene_is_named(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(SCENE, **wrong)  # type: ignore[arg-type]


def test_a_tiny_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="8"):
        draw(SCENE, size=8)


def test_contact_sheet() -> None:
    pictures = [np.full((4, 5, 3), shade, np.uint8) for shade in (10, 20, 30)]
    sheet = contact_sheet(pictures, 2)
    assert sheet.shape == (10, 12, 3)
    assert (sheet[:4, 7:] == 20).all()
    assert (sheet[6:, :5] == 30).all()
    assert (sheet[6:, 7:] == 255).all()
    with pytest.raises(ValueError, match="empty"):
        contact_sheet([], 2)
    with pytest.raises(ValueError, match="one shape"):
        contact_sheet([pictures[0], pictures[0][1:]], 2)


# --- splits ------------------------------------------------------------------------------------


def test_balanced_has_every_group_equally_often() -> None:
    counts = Counter(
        (scene.label, scene.environment) for scene in plan_split(Split("test", 64, "balanced"), 1)
    )
    assert set(counts.values()) == {8}
    assert len(counts) == 8


def test_any_stretch_of_a_balanced_split_mixes_the_groups() -> None:
    plan = plan_split(Split("test", 32, "balanced"), 1)
    assert len({(scene.label, scene.environment) for scene in plan[:8]}) == 8


@pytest.mark.parametrize("strength", [0.0, 0.7, 1.0])
def test_shortcut_strength(strength: float) -> None:
    plan = plan_split(Split("train", 2000, "shortcut", strength), 1)
    assert Counter(scene.label for scene in plan) == {"tank": 1000, "no_tank": 1000}
    for label, environment in (("tank", "overcast"), ("no_tank", "grass")):
        counts = Counter(scene.environment for scene in plan if scene.label == label)
        assert counts[environment] / 1000 == pytest.approx(strength, abs=0.05 if strength % 1 else 0)
        for other in set(ENVIRONMENTS) - {environment}:
            assert counts[other] / 1000 == pytest.approx((1 - strength) / 3, abs=0.05)


def test_donors_are_empty() -> None:
    plan = plan_split(Split("donors", 8, "donors"), 1)
    assert {(s.label, s.object, s.distractors) for s in plan} == {("", None, False)}
    assert Counter(scene.environment for scene in plan) == dict.fromkeys(ENVIRONMENTS, 2)


def test_splits_share_no_seed() -> None:
    seeds = [
        scene.seed
        for name in ("train", "validation", "test")
        for scene in plan_split(Split(name, 500, "balanced"), 7)
    ]
    assert len(set(seeds)) == 1500
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert plan_split(Split("train", 4, "balanced"), 8)[0].seed not in seeds


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"name": "../up"}, "up"),
        ({"images": 0}, "0"),
        ({"kind": "random"}, "random"),
        ({"strength": 1.5}, "1.5"),
    ],
)
def test_an_unusable_split_is_named(wrong: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        replace(Split("train", 8, "shortcut"), **wrong)  # type: ignore[arg-type]


SPLITS = [
    Split("train", 40, "shortcut", 0.9),
    Split("test", 8, "balanced", clean=True),
    Split("donors", 4, "donors"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scenes") / "data"
    write_splits(folder, SPLITS, seed=3, size=32, workers=1)
    return folder


def test_workers_do_not_change_the_files(data: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    write_splits(
        tmp_path / "data",
        SPLITS,
        seed=3,
        size=32,
        workers=2,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert files(tmp_path / "data") == files(data)
    assert calls == [(32, 52), (40, 52), (48, 52), (52, 52)]


def test_the_manifest_tells_what_is_there(data: Path) -> None:
    named: set[str] = {f"{split.name}.parquet" for split in SPLITS}
    for split in SPLITS:
        manifest = pd.read_parquet(data / f"{split.name}.parquet")
        plan = plan_split(split, 3)
        assert manifest["seed"].dtype == np.int64
        assert manifest["seed"].tolist() == [scene.seed for scene in plan]
        assert manifest["label"].tolist() == [scene.label for scene in plan]
        assert manifest["environment"].tolist() == [scene.environment for scene in plan]
        for paths, sums in (("path", "sha256"), ("mask", "mask_sha256"), ("clean", "clean_sha256")):
            for path, checksum in zip(manifest[paths], manifest[sums], strict=True):
                if pd.notna(path):
                    named.add(path)
                    assert hashlib.sha256((data / path).read_bytes()).hexdigest() == checksum
        assert manifest["mask"].isna().all() == (split.kind == "donors")
        assert manifest["clean"].notna().all() == split.clean
        groups = {scene.label or "donor" for scene in plan}
        assert {group.split("/")[0] for group in manifest["group"]} == groups
    assert named == set(files(data))


def test_the_files_are_the_pictures(data: Path) -> None:
    scene = plan_split(SPLITS[1], 3)[5]
    picture = draw(scene, 32)
    folder = data / "test"
    with Image.open(folder / "masks/00005.png") as mask:
        assert mask.mode == "L"
        assert np.array_equal(np.asarray(mask), picture.mask)
    with Image.open(folder / "images/00005.png") as image:
        assert np.array_equal(np.asarray(image), picture.image)
    with Image.open(folder / "clean/00005.png") as clean:
        assert np.array_equal(np.asarray(clean), draw(replace(scene, object=None), 32).image)


def test_an_earlier_data_set_is_replaced_whole(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_splits(folder, [Split("old", 2, "balanced")], seed=1, size=16, workers=1)
    write_splits(folder, [Split("new", 2, "balanced")], seed=1, size=16, workers=1)
    assert {path.name for path in folder.iterdir()} == {"new", "new.parquet"}
    assert list(tmp_path.iterdir()) == [folder]


def test_a_failure_leaves_the_earlier_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    write_splits(folder, [Split("old", 2, "balanced")], seed=1, size=16, workers=1)
    before = files(folder)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_splits(folder, [Split("new", 2, "balanced")], seed=1, size=16, workers=1, progress=stop)
    assert files(folder) == before
    assert list(tmp_path.iterdir()) == [folder]


def test_other_folders_are_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="no data set"):
        write_splits(tmp_path, [Split("new", 2, "balanced")], seed=1, workers=1)
    assert (tmp_path / "thesis.txt").exists()


def test_splits_need_different_names(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="same"):
        write_splits(tmp_path / "data", [Split("same", 2, "balanced")] * 2, seed=1)
    with pytest.raises(ValueError, match="0 workers"):
        write_splits(tmp_path / "data", [Split("one", 2, "balanced")], seed=1, workers=0)
