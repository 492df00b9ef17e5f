"""`candling init`: what it asks, what it looks at, what it writes, and that an audit runs with that."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from candling.audit.policy import read_policy
from candling.audit.record import read_record
from candling.cli.drafts import Bound, language_params, scalar, vision_params
from candling.cli.main import run
from candling.models import ModelSpec, build_model, save_model
from tasks.language_params import read_language_params
from tasks.params import ModelParams, SourceParams, read_params
from tests.models.factories import Tiny

ROOT = Path(__file__).parents[2]
ASSETS = Path(os.environ.get("CANDLING_ASSETS", ROOT.parent / "shared" / "assets"))
CLASSES = ("cat", "dog", "egg")
FACTORY = "factory:tests.models.factories:tiny"
GIVEN = ["--model", "mine/w.pt", "--architecture", FACTORY, "--data", "mine/photos"]


def pictures(folder: Path, names: Sequence[str] = CLASSES, each: int = 12) -> None:
    for name in names:
        (folder / name).mkdir(parents=True)
        for i in range(each):
            pixels = np.random.default_rng(i).integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An audit repository with a model, pictures and texts in it."""
    for name in ("candling", "flows", "tasks"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name in ("action.yml", "ci/gitlab.yml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    mine = tmp_path / "mine"
    mine.mkdir()
    torch.save(Tiny().state_dict(), mine / "w.pt")
    (mine / "classes.json").write_text(json.dumps(CLASSES))
    (mine / "preprocessing.json").write_text('{"image_size": 16}')
    pictures(mine / "photos")
    spec = ModelSpec("residual_cnn", CLASSES, (16, 16), arguments={"widths": [3, 4]})
    save_model(build_model(spec), mine / "whole")
    story = tmp_path / "story"
    (story / "model").mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (story / "model" / name).write_text("{}")
    (story / "texts.txt").write_text("A dog ran.\n\nA cat sat.\n")
    (story / "asked.txt").write_text("Who ran?\n")
    (story / "names.txt").write_text("# of men\ntom\nben\n")
    (story / "rude.txt").write_text("void\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CANDLING_DEBUG", "0")
    return tmp_path


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nobody sits at stdin, and who reads it anyhow gets an end of file and does not hang."""
    with open(os.devnull, encoding="utf-8") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        yield
        monkeypatch.undo()


def written(root: Path) -> set[str]:
    """All files but those that were there."""
    here = ("mine", "story", "candling", "flows", "tasks", "ci", "action.yml", ".git")
    files = (file.relative_to(root) for file in root.rglob("*") if file.is_file())
    return {file.as_posix() for file in files if file.parts[0] not in here}


# -- From flags --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("nobody")
def test_params_of_weights_and_pictures(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", *GIVEN, "--name", "mine", "--threshold", "accuracy.overall=0.65"]) == 0
    assert written(repository) == {"params/mine.yaml", ".github/workflows/candling.yml"}
    file = repository / "params" / "mine.yaml"
    params = read_params(file)
    assert (params.name, params.gate, params.subjects) == ("mine", "model", ("model",))
    # Classes and preprocessing are found beside the weights.
    assert params.model == ModelParams(
        source="factory",
        name="tests.models.factories:tiny",
        weights="mine/w.pt",
        classes="mine/classes.json",
        preprocessing="mine/preprocessing.json",
    )
    assert params.data.eval == SourceParams(location="mine/photos")
    assert params.data.classes is None
    rules = {rule.measurement: rule for rule in read_policy(file).rules}
    assert (rules["accuracy.overall"].at_least, rules["accuracy.overall"].severity) == (0.65, "block")
    assert (rules["robustness.mean"].at_least, rules["robustness.mean"].severity) == (0.5, "warn")
    assert rules.keys() == {"accuracy.overall", "robustness.mean"}
    out, err = capsys.readouterr()
    assert "36 pictures of 3 classes: cat 12, dog 12, egg 12" in err
    assert "softmax over 3 classes" in err
    assert "wrote params/mine.yaml\nwrote .github/workflows/candling.yml\n" in out
    for command in ("plan params/mine.yaml", "audit params/mine.yaml", "gate reports/mine/model"):
        assert f"  candling {command} " in out


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("system", ["github", "gitlab", "none"])
def test_the_job_of_each_system(repository: Path, system: str) -> None:
    assert run(["init", *GIVEN, "--name", "mine", "--ci", system]) == 0
    files = written(repository) - {"params/mine.yaml"}
    if system == "none":
        assert files == set()
        return
    (file,) = files
    job: Any = yaml.safe_load((repository / file).read_text())
    if system == "github":
        (step,) = [step for step in job["jobs"]["audit"]["steps"] if step["uses"] == "./"]
        assert step["with"] == {"params": "params/mine.yaml", "report": "reports/mine/model"}
        # YAML 1.1 takes the key `on` for a truth; GitHub does not.
        assert "pull_request" in job[True]
        assert job["permissions"] == {"contents": "read", "pull-requests": "write"}
    else:
        template: Any = yaml.safe_load((repository / job["include"]["local"]).read_text())
        assert job["audit"]["extends"] in template
        assert job["audit"]["variables"] == {"PARAMS": "params/mine.yaml", "REPORT": "reports/mine/model"}


@pytest.mark.usefixtures("nobody")
def test_what_the_pictures_have_becomes_a_rule(repository: Path) -> None:
    mask = repository / "mine" / "mask.png"
    Image.new("L", (20, 20), 255).save(mask)
    rows = [
        f"photos/{name}/{i}.png,{name},{name}/{'grass' if i % 2 else 'snow'},mask.png"
        for name in CLASSES
        for i in range(12)
    ]
    (repository / "mine" / "all.csv").write_text("\n".join(["path,label,group,mask", *rows]))
    given = ["init", *GIVEN[:-1], "mine/all.csv", "--name", "mine"]
    assert run([*given, "--class", "dog", "--class", "egg"]) == 0
    params = read_params(repository / "params" / "mine.yaml")
    assert params.data.classes == ("dog", "egg")
    assert [rule.measurement for rule in params.policy.rules] == [
        "accuracy.overall", "accuracy.worst_group", "object_evidence.over_chance", "robustness.mean",
    ]  # fmt: skip
    dropped = ["--threshold", "accuracy.worst_group=none", "--threshold", "robustness.mean=none"]
    assert run([*given, *dropped, "--force"]) == 0
    left = read_policy(repository / "params" / "mine.yaml").rules
    assert [rule.measurement for rule in left] == ["accuracy.overall", "object_evidence.over_chance"]


@pytest.mark.usefixtures("nobody")
def test_of_pictures_in_splits_the_held_out_ones_are_taken(repository: Path) -> None:
    pictures(repository / "mine" / "parts" / "train", each=3)
    pictures(repository / "mine" / "parts" / "test", each=2)
    assert run(["init", "--model", "mine/whole", "--data", "mine/parts", "--name", "a"]) == 0
    assert read_params(repository / "params" / "a.yaml").data.eval == SourceParams(
        location="mine/parts", split="test"
    )
    given = ["init", "--model", "mine/whole", "--data", "mine/parts", "--name", "b", "--ci", "none"]
    assert run([*given, "--split", "train"]) == 0
    assert "split: train" in (repository / "params" / "b.yaml").read_text()


@pytest.mark.usefixtures("nobody")
def test_params_of_a_language_model(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--model", "story/model", "--texts", "story/texts.txt", "--prompts", "story/asked.txt"]
    said = ["--concept", "doctor:nurse", "--concept", " art", "--lexicon", "story/names.txt"]
    assert run(["init", *given, *said, "--forbidden", "story/rude.txt", "--ci", "none"]) == 0
    # The folder's own name says nothing.
    assert written(repository) == {"params/story.yaml"}
    params = read_language_params(repository / "params" / "story.yaml")
    assert (params.model, params.texts, params.prompts) == (
        "story/model", "story/texts.txt", "story/asked.txt",
    )  # fmt: skip
    assert [(one.says, one.against) for one in params.concepts] == [("doctor", "nurse"), (" art", None)]
    assert params.listed(repository) == {"names": ("tom", "ben"), "rude": ("void",)}
    assert params.hits == ("rude",)
    scopes = {(rule.measurement, tuple(sorted(rule.scope.items()))) for rule in params.policy.rules}
    assert scopes == {
        ("association.confirmed", (("against", "nurse"), ("concept", "doctor"), ("lexicon", "names"))),
        ("association.confirmed", (("concept", "art"), ("lexicon", "names"))),
        ("glitch.tokens", ()),
        ("lexicon.hit_rate", (("lexicon", "rude"),)),
        ("attribution.over_random", ()),
    }
    # Each rule is on something that such an audit records.
    measurable = [scope for concept in params.concepts for scope in concept.scopes]
    for rule in params.policy.rules:
        if rule.measurement == "association.confirmed":
            assert {key: value for key, value in rule.scope.items() if key != "lexicon"} in measurable
    out, err = capsys.readouterr()
    assert "story/texts.txt: 2 lines" in err
    assert "story/names.txt: 2 lines" in err
    assert "candling plan" not in out  # of texts it cannot tell


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(
    ("tokenizer", "concept", "words"),
    [
        (
            {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}},
            "art",
            "this model says ' art'",
        ),
        ({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False}}, " art", ""),
        ({"normalizer": {"type": "Prepend"}}, " art", "'art' is enough"),
        ({"normalizer": {"type": "Prepend"}}, "art", ""),
    ],
)
def test_a_concept_spelled_as_it_is_never_said_is_noted(
    repository: Path, capsys: pytest.CaptureFixture[str], tokenizer: object, concept: str, words: str
) -> None:
    (repository / "story" / "model" / "tokenizer.json").write_text(json.dumps(tokenizer))
    given = ["--model", "story/model", "--texts", "story/texts.txt", "--concept", concept]
    assert run(["init", *given, "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any(words in note for note in notes) if words else notes == []


@pytest.mark.usefixtures("nobody")
def test_json_is_all_there_is_on_stdout(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outside = repository.parent / f"{repository.name}-photos"
    pictures(outside)
    (repository / ".gitignore").write_text("/mine/whole/\n")
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    given = ["--model", "mine/whole", "--data", str(outside), "--name", "a", "--ci", "github"]
    assert run(["init", *given, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["files"] == ["params/a.yaml", ".github/workflows/candling.yml"]
    assert told["found"]["data"] == {"pictures": 36, "classes": {"cat": 12, "dog": 12, "egg": 12}}
    assert told["found"]["model"]["head"] == "softmax over 3 classes"
    assert told["next"][-1] == "candling gate reports/a/model"
    # A checkout would lack both.
    assert len(told["notes"]) == 2
    assert any("git ignores mine/whole" in note for note in told["notes"])
    assert any("outside of the repository" in note for note in told["notes"])


@pytest.mark.usefixtures("nobody")
def test_paths_are_those_of_where_one_stands(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository / "mine")
    assert run(["init", "--model", "whole", "--data", "photos", "--name", "a"]) == 0
    params = read_params(repository / "params" / "a.yaml")
    assert params.model == ModelParams(source="folder", name="mine/whole")
    assert params.data.eval == SourceParams(location="mine/photos")
    assert "  candling audit ../params/a.yaml" in capsys.readouterr().out


# -- What cannot be used -----------------------------------------------------------------------------

VISION = ["--model", "mine/whole", "--data", "mine/photos"]
LANGUAGE = ["--model", "story/model", "--texts", "story/texts.txt", "--concept", "art"]
RUDE = "story/rude.txt"
REFUSED: dict[str, tuple[list[str], str]] = {
    "nothing said": ([], "--model and --data are not said"),
    "nothing of texts": (["--kind", "language"], "--model, --texts and --concept are not said"),
    "no model": (["--data", "mine/photos"], "--model is not said"),
    "no architecture": (["--model", "mine/w.pt", "--data", "mine/photos"], "--architecture is not said"),
    "no such kind": (["--kind", "sound"], "--kind 'sound': write vision"),
    "no such model": (["--model", "x", "--data", "mine/photos"], "--model 'x': nothing is there"),
    "no model there": (["--model", "mine/photos", "--data", "mine/photos"], "no files of weights"),
    "no weights": (["--model", "mine/classes.json", "--data", "mine/photos"], "weights end in"),
    "other weights": (
        ["--model", "mine/w.pt", "--architecture", "resnet18", "--data", "mine/photos"],
        "weights do not fit",
    ),
    "no such architecture": (
        ["--model", "mine/w.pt", "--architecture", "resnt18", "--data", "mine/photos"],
        "did you mean",
    ),
    "architecture of a folder": ([*VISION, "--architecture", "resnet18"], "leave it out"),
    "no such pictures": ([*VISION[:-1], "x"], "--data 'x': nothing is there"),
    "no pictures": ([*VISION[:-1], "story"], "no pictures in it"),
    "no such split": ([*VISION, "--split", "test"], "no split folder 'test'"),
    "other classes": ([*VISION, "--class", "cat", "--class", "dgo"], "did you mean 'dog'"),
    "one class": ([*VISION, "--class", "cat"], "two classes or more"),
    "of the other kind": ([*VISION, "--texts", "story/texts.txt", "--kind", "vision"], "leave it out"),
    "no threshold": ([*VISION, "--threshold", "accuracy.overall"], "write ID=NUMBER"),
    "no number": ([*VISION, "--threshold", "accuracy.overall=high"], "'high' is no number"),
    "out of range": ([*VISION, "--threshold", "accuracy.overall=80"], "0 to 1"),
    "no such rule": ([*VISION, "--threshold", "accuracy.overal=0.8"], "asked for accuracy.overall"),
    "no rule left": (
        [*VISION, "--threshold", "accuracy.overall=none", "--threshold", "robustness.mean=none"],
        "no rule is left",
    ),
    "no such system": ([*VISION, "--ci", "jenkins"], "--ci 'jenkins': write github"),
    "no name": ([*VISION, "--name", "a/b"], "--name 'a/b'"),
    "unset variable": (["--model", "${NO_SUCH}/m", "--data", "mine/photos"], "NO_SUCH is not set"),
    "no language model": (["--model", "mine/whole", *LANGUAGE[2:]], "no config.json here"),
    "no texts": ([*LANGUAGE[:2], "--texts", "story", "--concept", "art"], "is a folder"),
    "no concept": ([*LANGUAGE[:-1], "art:"], "write what it says"),
    "concept twice": ([*LANGUAGE, "--concept", " art"], "is said twice"),
    "forbidden of no prompts": ([*LANGUAGE, "--forbidden", "story/rude.txt"], "--prompts"),
    "lexicon twice": (
        [*LANGUAGE, "--prompts", "story/asked.txt", *("--lexicon", RUDE, "--forbidden", RUDE)],
        "both are called rude",
    ),
}  # fmt: skip


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_is_one_sentence_and_nothing_is_written(
    repository: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    arguments, words = REFUSED[case]
    assert run(["init", *arguments]) == 4
    out, err = capsys.readouterr()
    assert out == ""
    *_, last = err.splitlines()
    assert last.startswith("error: ")
    assert words in last
    assert err.count("error: ") == 1
    assert written(repository) == set()


@pytest.mark.usefixtures("nobody")
def test_labels_that_the_model_does_not_know(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures(repository / "mine" / "others", ("cat", "fox"), each=2)
    assert run(["init", "--model", "mine/whole", "--data", "mine/others", "--json"]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any("left out: fox" in note for note in notes)
    assert any("4 pictures are few" in note for note in notes)
    pictures(repository / "mine" / "strangers", ("fox", "hen"), each=1)
    assert run(["init", "--model", "mine/whole", "--data", "mine/strangers", "--name", "b"]) == 4
    assert "none of its labels is a class of the model" in capsys.readouterr().err


@pytest.mark.usefixtures("nobody")
def test_files_that_are_there_stay(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, instead in (
        ("params/a.yaml", "another --name"),
        (".github/workflows/candling.yml", "--ci none and add the job to it by hand"),
    ):
        file = repository / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine\n")
        assert run(["init", *VISION, "--name", "a", "--ci", "github"]) == 4
        assert f"{file}: is there already; say {instead}, or --force" in capsys.readouterr().err
        assert written(repository) == {name}
        assert file.read_text() == "mine\n"
        file.unlink()
    # A second audit leaves the job that is there alone, unless it is told to.
    job = repository / ".github" / "workflows" / "candling.yml"
    job.write_text("mine\n")
    assert run(["init", *VISION, "--name", "a"]) == 0
    assert job.read_text() == "mine\n"
    assert run(["init", *VISION, "--name", "a", "--ci", "github", "--force"]) == 0
    assert "params/a.yaml" in job.read_text()


@pytest.mark.usefixtures("nobody")
def test_a_job_goes_where_ci_looks_for_it(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository.parent / ".git").mkdir()
    try:
        assert run(["init", *VISION, "--ci", "github"]) == 4
        assert "lies within the git repository" in capsys.readouterr().err
    finally:
        (repository.parent / ".git").rmdir()
    (repository / "action.yml").unlink()
    assert run(["init", *VISION, "--ci", "github"]) == 4
    assert "action.yml: no such file, and the job needs it" in capsys.readouterr().err
    assert written(repository) == set()


def test_outside_of_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["init", "--yes"]) == 4
    assert "run this inside an audit repository" in capsys.readouterr().err


# -- In processes of their own: a terminal, and the base install ---------------------------------------

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120", "OMP_NUM_THREADS": "1"}


def test_without_the_engine_it_writes_and_says_what_was_not_looked_at(repository: Path) -> None:
    blocked = "import sys; sys.modules['torch'] = None; from candling.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", blocked, "init", *GIVEN, "--name", "a", "--json"],
        cwd=repository, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["found"] == {"model": None, "data": None}
    for what in ("model", "pictures"):
        note = f"{what}: not looked at, as torch is not installed; `pip install 'candling[engine]'` adds it"
        assert note in told["notes"]
    assert read_params(repository / "params" / "a.yaml").data.eval == SourceParams(location="mine/photos")


@dataclass(frozen=True)
class Talk:
    """How a conversation ended: the code, what stood on the terminal, and on stdout where that was none."""

    code: int
    screen: str
    stdout: str


def talk(cwd: Path, arguments: Sequence[str], answers: Sequence[str], *, piped: bool = False) -> Talk:
    """`candling init` at a terminal, with an answer to each question; the last answer may be a key."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "candling", "init", *arguments],
        cwd=cwd, env={**ENVIRONMENT, "TERM": "xterm"}, stdin=theirs, stderr=theirs,
        stdout=subprocess.PIPE if piped else theirs, start_new_session=True,
        preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(theirs)
    screen, todo, deadline = "", list(answers), time.monotonic() + 90
    try:
        while time.monotonic() < deadline:
            ready, _, _ = select.select([ours], [], [], 0.2)
            if ready:
                try:
                    chunk = os.read(ours, 65536)
                except OSError:
                    break  # the other end is closed
                if not chunk:
                    break
                screen += chunk.decode(errors="replace")
            elif todo and screen.endswith(": "):
                key = todo.pop(0)
                os.write(ours, key.encode() if key in ("\x03", "\x04") else f"{key}\n".encode())
                screen += "\n"
            elif process.poll() is not None:
                break
        stdout = b""
        if process.stdout is not None:
            with process.stdout:
                stdout = process.stdout.read()
        assert process.wait(timeout=10) is not None
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert todo == [], screen
    return Talk(process.returncode, screen.replace("\r", ""), stdout.decode())


def _take_terminal() -> None:
    """Make stdin the terminal of the new session, so that its interrupt key reaches the process."""
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # Where the tests themselves run in the background, they ignore it, and so would what they start.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_a_talk_about_pictures(repository: Path) -> None:
    answers = [
        "", "nowhere", "mine/w.pt", FACTORY, "", "", "mine/photo", "mine/photos", "cat, dgo", "dog, cat",
        "1.5", "0.6", "none", "shapes", "jenkins", "gitlab",
    ]  # fmt: skip
    ended = talk(repository, [], answers)
    assert ended.code == 0, ended.screen
    assert written(repository) == {"params/shapes.yaml", ".gitlab-ci.yml"}
    params = read_params(repository / "params" / "shapes.yaml")
    assert params.data.classes == ("dog", "cat")
    assert isinstance(params.model, ModelParams)
    assert params.model.classes == "mine/classes.json"
    assert [(rule.measurement, rule.at_least) for rule in params.policy.rules] == [("accuracy.overall", 0.6)]
    # An answer that cannot be used is told, and the question asked again; nobody there said a flag.
    for words in ("'nowhere': nothing is there", "'mine/photo': nothing", "did you mean 'dog'?", "0 to 1"):
        assert words in ended.screen
    assert "--" not in ended.screen
    assert "36 pictures of 3 classes" in ended.screen
    assert "wrote params/shapes.yaml" in ended.screen


def test_a_talk_about_texts_with_stdout_for_a_script(repository: Path) -> None:
    answers = [
        "language", "mine", "story/model", "story/texts.txt", "story/asked.txt", "doctor:nurse", "doctor",
        "art", "", "story/names.txt", "story/rude.txt", "", "", "0.1", "", "talk", "none",
    ]  # fmt: skip
    ended = talk(repository, ["--json"], answers, piped=True)
    assert ended.code == 0, ended.screen
    assert ended.stdout.startswith("{\n")  # no part of a question before it
    assert json.loads(ended.stdout)["files"] == ["params/talk.yaml"]
    params = read_language_params(repository / "params" / "talk.yaml")
    assert [one.label for one in params.concepts] == ["doctor", "art"]
    hits = [rule for rule in params.policy.rules if rule.measurement == "lexicon.hit_rate"]
    assert [(rule.scope, rule.at_most) for rule in hits] == [({"lexicon": "rude"}, 0.1)]


def test_weights_of_another_architecture_are_asked_about_again(repository: Path) -> None:
    answers = ["mine/w.pt", "resnet18", "", "", "mine/whole", "", "", "", "", ""]
    ended = talk(repository, ["--data", "mine/photos"], answers)
    assert ended.code == 0, ended.screen
    assert "weights do not fit" in ended.screen
    assert written(repository) == {"params/whole.yaml", ".github/workflows/candling.yml"}


@pytest.mark.parametrize("key", ["\x03", "\x04"])
def test_who_leaves_leaves_nothing(repository: Path, key: str) -> None:
    ended = talk(repository, VISION, ["", "", "", key])
    assert ended.code == 130, ended.screen
    assert written(repository) == set()


def test_flags_that_answer_all_ask_nothing(repository: Path) -> None:
    ended = talk(repository, [*VISION, "--yes"], [])
    assert ended.code == 0, ended.screen
    assert written(repository) == {"params/whole.yaml", ".github/workflows/candling.yml"}


# -- The texts ---------------------------------------------------------------------------------------

ODD = [
    "yes", "no", "null", "~", "1", "0x1", "1e3", "a: b", "a #b", "{a}", "[a", "- a", "&a", "*a", "!a", "'",
    '"', "a,b", " a", "a ", "ü/☂", "😀", "a\tb", "a\x85b", "\\", "@a", "%a", "a:b", "c:/x", "=",
    "2026-01-01", "",
]  # fmt: skip


@pytest.mark.parametrize("text", ODD)
def test_any_text_comes_back(tmp_path: Path, text: str) -> None:
    from candling.audit.yamlfile import load

    rule = Bound("accuracy.overall", "at_least", 0.9999999, f"it says {text}")
    file = tmp_path / "a.yaml"
    file.write_text(f"a: {scalar(text)}\n", encoding="utf-8")
    assert load(file).data == {"a": text}
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == {"a": text}
    model = {"source": "folder", "name": text or "a"}
    file.write_text(
        vision_params("a", model, text or "a", [rule], split=text, classes=[text, "other"]), encoding="utf-8"
    )
    params = read_params(file)
    assert params.data.classes == (text, "other")
    assert (params.policy.rules[0].why, params.policy.rules[0].at_least) == (f"it says {text}", 0.9999999)
    assert isinstance(params.data.eval, SourceParams)
    assert params.data.eval.location == (text or "a")
    concepts = [{"says": text or "a", "against": "other"}]
    rules = [Bound("association.confirmed", "at_most", 0, "why", {"concept": text})]
    file.write_text(
        language_params("a", "m", "t", concepts, rules, lexicons={"a": text or "a"}), encoding="utf-8"
    )
    read = read_language_params(file)
    assert read.concepts[0].says == (text or "a")
    assert read.lexicons == {"a": text or "a"}
    assert read.policy.rules[0].scope == {"concept": text}


# -- What it writes runs -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not (ASSETS / "stories260k").is_dir(), reason=f"needs {ASSETS}; see CANDLING_ASSETS")
def test_an_audit_of_a_language_model_runs_with_it(
    tmp_path: Path, candling: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for name in ("candling", "flows", "tasks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "params" / "stories", tmp_path / "story")
    given = ["--model", str(ASSETS / "stories260k"), "--texts", "story/held_out.txt", "--concept", "girl:boy"]
    more = ["--prompts", "story/asked.txt", "--lexicon", "story/weak.txt", "--name", "story", "--ci", "none"]
    done = candling("init", *given, *more, "--yes", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = candling("audit", "params/story.yaml", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (verdict,) = json.loads(done.stdout)["subjects"]
    record = read_record(tmp_path / "reports" / "story" / "model")
    assert record.errors == ()
    # Every rule that was written is about something that was measured, and could be judged.
    assert {outcome["status"] for outcome in verdict["outcomes"]} <= {"passed", "failed", "warned"}
    assert len(verdict["outcomes"]) == len(record.policy.rules) == 3
    assert candling("gate", "reports/story/model", cwd=tmp_path).returncode == verdict["exit_code"]


@pytest.fixture
def candling() -> Callable[..., subprocess.CompletedProcess[str]]:
    def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "candling", *arguments],
            cwd=cwd, env={**ENVIRONMENT, "PYTHONPATH": str(cwd)}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip

    return call


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--threshold", "accuracy.overall=nan"], "is no number"),
        (["--threshold", "accuracy.overall=inf"], "is no number"),
        (["--name", "n" * 101], "at most 100 letters"),
        (["--data", "d" * 5000], "nothing is there"),
        (["--model", "~nosuchuser/x"], "nothing is there"),
        (["--class", "cat", "--class", "Cat"], "each named once"),
    ],
)
def test_answers_that_cannot_be_used_end_with_4(
    given: list[str], words: str, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(repository)
    flags = dict(zip(VISION[::2], VISION[1::2], strict=True)) if len(VISION) % 2 == 0 else {}
    kept = [part for pair in flags.items() if pair[0] not in given for part in pair]
    assert run(["init", *kept, *given]) == 4
    assert words in capsys.readouterr().err
    assert written(repository) == before


@pytest.mark.usefixtures("nobody")
def test_what_git_ignores_within_a_folder_is_said(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["git", "init", "-q", str(repository)], check=True)
    shutil.copytree(repository / "mine" / "whole", repository / "models" / "whole")
    (repository / ".gitignore").write_text("/models/*/?*\n")
    given = ["--model", "models/whole", "--data", "mine/photos", "--ci", "github", "--json"]
    assert run(["init", *given]) == 0
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any("git ignores models/whole" in note for note in notes)
