"""`candling init`: params, policy and a CI job for a model of one's own, after a few questions."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from candling.cli.answers import Draft, Here, read_thresholds
from candling.cli.answers_language import LanguageFlags, ask_language
from candling.cli.answers_vision import VisionFlags, ask_vision
from candling.cli.asking import Asker, shown
from candling.cli.completing import among, model_folders
from candling.cli.drafts import CI_FILES, ci_file
from candling.cli.options import Debug
from candling.cli.output import emit
from candling.cli.repository import find_repository, load_module
from candling.errors import ParamsError
from candling.writing import write_whole

app = typer.Typer(add_completion=False, rich_markup_mode=None)

_KINDS = ("vision", "language")
_LOOKED_AT = 20  # files of a folder that git is asked about
_SYSTEMS = (*CI_FILES, "none")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


@app.command()
def init(
    name: Annotated[str | None, typer.Option("--name", help="Of the audit: params/NAME.yaml.")] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="vision or language.", autocompletion=among(*_KINDS)),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            help="A folder, a file of weights, model.onnx, or such as torchvision:NAME@WEIGHTS.",
            autocompletion=model_folders,
        ),
    ] = None,
    architecture: Annotated[
        str | None,
        typer.Option(
            "--architecture", help="Of a file of weights: resnet18, timm:NAME, factory:MODULE:FUNCTION."
        ),
    ] = None,
    classes: Annotated[
        str | None, typer.Option("--classes", metavar="FILE", help="JSON list of the names of its classes.")
    ] = None,
    preprocessing: Annotated[
        str | None, typer.Option("--preprocessing", metavar="FILE", help="JSON of resize, mean, std, ….")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data", metavar="PLACE", help="Pictures: a folder, a manifest, COCO or Hugging Face data."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", metavar="NAME", help="The part of them that is held out.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--class", metavar="NAME", help="A class to audit; may be repeated; all if none is named."
        ),
    ] = None,
    texts: Annotated[
        str | None, typer.Option("--texts", metavar="FILE", help="Texts that it has not seen, one a line.")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option("--prompts", metavar="FILE", help="What it is asked in use, one a line.")
    ] = None,
    concept: Annotated[
        list[str] | None,
        typer.Option(
            "--concept",
            metavar="TEXT[:TEXT]",
            help="What it may be made to say, and what to compare; repeat.",
        ),
    ] = None,
    lexicon: Annotated[
        list[str] | None,
        typer.Option("--lexicon", metavar="FILE", help="Words that may lead there, one a line; repeat."),
    ] = None,
    forbidden: Annotated[
        str | None,
        typer.Option("--forbidden", metavar="FILE", help="Words that nothing it says may hold, one a line."),
    ] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold", metavar="ID=NUMBER", help="Such as accuracy.overall=0.8; none for no rule; repeat."
        ),
    ] = None,
    ci: Annotated[
        str | None,
        typer.Option(
            "--ci", help="github, gitlab or none: whose job to write.", autocompletion=among(*_SYSTEMS)
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing; take defaults.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
    debug: Debug = False,
) -> None:
    """Set up the audit of a model of yours: params with a policy, and a CI job.

    Asks what no flag says; without a terminal, or with --yes, it takes defaults. What it is told is looked at
    before anything is written.
    """
    root = find_repository(Path.cwd())
    here = Here(root, load_module(root, "tasks.params", "init"))
    asker = Asker(asks=not yes and sys.stdin is not None and sys.stdin.isatty())
    thresholds = read_thresholds(threshold or ())
    if name is not None:
        _named(root, name, force)
    if ci is not None:
        _system(root, ci, force)
    of_pictures = {
        "--architecture": architecture, "--classes": classes, "--preprocessing": preprocessing,
        "--data": data, "--split": split, "--class": only,
    }  # fmt: skip
    of_texts = {
        "--texts": texts, "--prompts": prompts, "--concept": concept, "--lexicon": lexicon,
        "--forbidden": forbidden,
    }  # fmt: skip
    kind = _ask_kind(asker, kind, of_pictures, of_texts)
    needed = {"--data": data} if kind == "vision" else {"--texts": texts, "--concept": concept}
    _check_answered(asker, {"--model": model} | needed)
    if kind == "vision":
        flags = VisionFlags(model, architecture, classes, preprocessing, data, split, only or ())
        draft = ask_vision(asker, here, flags, thresholds)
    else:
        told = LanguageFlags(model, texts, prompts, concept or (), lexicon or (), forbidden)
        draft = ask_language(asker, here, told, thresholds)
    name = asker(
        "What is the audit called",
        name,
        lambda text: _named(root, text, force),
        flag="--name",
        default=draft.name,
    )
    default_ci = _likely_system(root)
    question = "Which CI runs it: github, gitlab or none"
    ci = asker(question, ci, lambda text: _system(root, text, force), flag="--ci", default=default_ci)
    notes = [*draft.notes]
    if ci != "none":
        notes += [f"CI: {note}" for note in _unseen(here, draft)]
    files = _files(here, draft, name, ci)
    write_whole(files)
    _tell(root, draft, name, list(files), notes, as_json=as_json)


def _ask_kind(asker: Asker, kind: str | None, of_pictures: dict[str, Any], of_texts: dict[str, Any]) -> str:
    """The kind of audit; flags that only one kind has say it too.

    Raises
    ------
    ParamsError
        If they contradict each other, or it is no kind.
    """

    def read(text: str) -> str:
        if text not in _KINDS:
            raise ParamsError(f"--kind {text!r}: write vision for pictures, or language")
        return text

    said = {
        "vision": [flag for flag, value in of_pictures.items() if value],
        "language": [flag for flag, value in of_texts.items() if value],
    }
    if kind is None and any(said.values()):
        kind = "language" if said["language"] else "vision"
    question = "What is it a model of: vision (pictures) or language"
    kind = asker(question, kind, read, flag="--kind", default="vision")
    other = "language" if kind == "vision" else "vision"
    if said[other]:
        raise ParamsError(
            f"{said[other][0]} is for an audit of {other}, and this is one of {kind}; leave it out"
        )
    return kind


def _check_answered(asker: Asker, needed: dict[str, Any]) -> None:
    missing = [flag for flag, value in needed.items() if not value]
    if missing and not asker.asks:
        listed = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
        words = f"{listed} {'is' if len(missing) == 1 else 'are'} not said"
        raise ParamsError(
            f"nobody can be asked, and {words}; say so by flags, or type `candling init` at a terminal"
        )


def _named(root: Path, name: str, force: bool) -> str:
    if not _NAME.fullmatch(name):
        raise ParamsError(
            f"--name {name!r}: is made of at most 100 letters, digits, `.`, `_` and `-`, "
            "a letter or digit first"
        )
    _check_free(root / "params" / f"{name}.yaml", "say another --name", force)
    return name


def _system(root: Path, system: str, force: bool) -> str:
    if system not in _SYSTEMS:
        raise ParamsError(f"--ci {system!r}: write {', '.join(_SYSTEMS[:-1])} or {_SYSTEMS[-1]}")
    if system != "none":
        file, needed = CI_FILES[system]
        if not (root / needed).is_file():
            raise ParamsError(
                f"{root / needed}: no such file, and the job needs it; copy it here, or say --ci none"
            )
        above = next((folder for folder in (root, *root.parents) if (folder / ".git").exists()), root)
        if above != root:
            raise ParamsError(
                f"{root}: lies within the git repository {above}, and CI looks for its jobs there alone; "
                "say --ci none and see docs/ci.md"
            )
        _check_free(root / file, "say --ci none and add the job to it by hand", force)
    return system


def _check_free(file: Path, instead: str, force: bool) -> None:
    if file.is_dir() or (os.path.lexists(file) and not force):
        raise ParamsError(f"{file}: is there already; {instead}, or --force to replace it")


def _likely_system(root: Path) -> str:
    """The system that the repository is likely to use, unless it has a job there already."""
    try:
        remotes = (root / ".git" / "config").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        remotes = ""
    system = "gitlab" if "gitlab" in remotes or (root / ".gitlab-ci.yml").exists() else "github"
    file, needed = CI_FILES[system]
    return "none" if (root / file).exists() or not (root / needed).is_file() else system


def _unseen(here: Here, draft: Draft) -> list[str]:
    """What the audit reads and a checkout by CI will not hold."""
    notes = []
    for place in draft.places:
        path = here.path(place)
        if not path.resolve().is_relative_to(here.root.resolve()):
            notes.append(f"{place} lies outside of the repository, and a checkout has only what is in it")
        elif any(_ignored(one, here.root) for one in _samples(path)):
            notes.append(f"git ignores {place}; keep it in git or in DVC, for a checkout to have it")
    return notes


def _samples(path: Path) -> list[Path]:
    """A place, and of a folder some of its files: git may ignore these alone, as it does those of models/."""
    if not path.is_dir():
        return [path]
    files = (file for depth in ("*", "*/*") for file in path.glob(depth) if file.is_file())
    return [path, *itertools.islice(files, _LOOKED_AT)]


def _ignored(path: Path, root: Path) -> bool:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "check-ignore", "-q", "--", str(path)], capture_output=True
        )
    except OSError:
        return False  # without git nothing is known of what it ignores
    return done.returncode == 0


def _files(here: Here, draft: Draft, name: str, ci: str) -> dict[Path, str]:
    """The texts to write, after the params were read as the audit will read them."""
    text = draft.text(name)
    with tempfile.TemporaryDirectory(prefix="candling-") as made:
        file = Path(made) / f"{name}.yaml"
        file.write_text(text, encoding="utf-8")
        try:
            if draft.kind == "vision":
                here.params.read_params(file)
            else:
                load_module(here.root, "tasks.language_params", "init").read_language_params(file)
        except ParamsError as error:
            # The file that a person would have, not the one that is gone by now.
            raise ParamsError(str(error).replace(str(file), f"params/{name}.yaml")) from error
    params = f"params/{name}.yaml"
    files = {here.root / params: text}
    if ci != "none":
        files[here.root / CI_FILES[ci][0]] = ci_file(ci, params, f"reports/{name}/model")
    return files


def _tell(root: Path, draft: Draft, name: str, files: list[Path], notes: list[str], *, as_json: bool) -> None:
    """What was written, what to know, and what to type next, as it is typed where one stands."""
    params, report = (_from_here(root / part) for part in (f"params/{name}.yaml", f"reports/{name}/model"))
    commands = {
        f"candling plan {params}": "what it will cost",
        f"candling audit {params}": "look, test, and write the report",
        f"candling gate {report}": "the verdict, rule by rule",
    }
    if draft.kind == "language":
        # Of texts the cost is not told yet.
        del commands[f"candling plan {params}"]
    if as_json:
        told = {
            "name": name,
            "kind": draft.kind,
            "files": [file.relative_to(root).as_posix() for file in files],
            "found": draft.found,
            "notes": notes,
            "next": list(commands),
        }
        emit(json.dumps(told, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        return
    lines = [f"wrote {_from_here(file)}" for file in files]
    lines += [f"note: {note}" for note in notes]
    widest = max(map(len, commands))
    lines += ["", "next:", *(f"  {command:<{widest}}    # {word}" for command, word in commands.items())]
    emit("".join(f"{shown(line)}\n" for line in lines))


def _from_here(path: Path) -> str:
    return os.path.relpath(path, Path.cwd())
