"""What `candling init` asks about a language model."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from candling.cli.answers import Draft, Here, ask_bounds, name_like
from candling.cli.asking import NONE, Asker, none_or
from candling.cli.drafts import Bound, language_params
from candling.cli.looking import check_language_model, lines_of, wants_space
from candling.errors import ParamsError

__all__ = ["LanguageFlags", "ask_language"]

_HUB = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class LanguageFlags:
    """What the flags of `candling init` say of a language model."""

    model: str | None = None
    texts: str | None = None
    prompts: str | None = None
    concepts: Sequence[str] = ()
    lexicons: Sequence[str] = ()
    forbidden: str | None = None


def ask_language(
    asker: Asker, here: Here, flags: LanguageFlags, thresholds: dict[str, float | None]
) -> Draft:
    """Ask for model, texts, concepts and policy, and look at each.

    Raises
    ------
    CandlingError
        If a flag's answer cannot be used.
    """
    notes: list[str] = []
    model = asker(
        "Where is the model? A folder as transformers saves it, or a name on the hub",
        flags.model,
        lambda text: _read_model(here, text.strip(), notes),
        flag="--model",
    )
    counts: dict[str, int] = {}

    def texts_of(flag: str, what: str, text: str, comment: str | None = None) -> str:
        file = here.file(flag, text)
        count = lines_of(here.path(file), what, comment=comment)
        counts[file] = count
        asker.say(f"  {file}: {count} {'line' if count == 1 else 'lines'}")
        return file

    texts = asker(
        "Ordinary texts that it has not seen, a file with one a line",
        flags.texts,
        lambda text: texts_of("--texts", "ordinary texts, one a line", text),
        flag="--texts",
    )
    prompts = asker(
        "Prompts that it is asked in use, a file with one a line (or none)",
        flags.prompts,
        none_or(lambda text: texts_of("--prompts", "prompts, one a line", text)),
        flag="--prompts",
        default=NONE,
    )
    concepts = _ask_concepts(asker, flags.concepts)
    if note := _about_spaces(here.path(model), concepts):
        notes.append(note)
        asker.say(f"  {note}")
    lexicons = _ask_lexicons(
        asker, flags.lexicons, lambda text: texts_of("--lexicon", "words, one a line", text, "#")
    )
    forbidden = ""
    if prompts or flags.forbidden is not None:
        forbidden = asker(
            "Words that nothing it says may hold, a file with one a line (or none)",
            flags.forbidden,
            none_or(lambda text: texts_of("--forbidden", "words, one a line", text, "#")),
            flag="--forbidden",
            default=NONE,
        )
    if forbidden and not prompts:
        raise ParamsError(
            "--forbidden: is looked for in what follows prompts; name a file of them with --prompts"
        )
    hits = {name_like(forbidden): forbidden} if forbidden else {}
    if hits.keys() & lexicons.keys():
        raise ParamsError(
            f"--forbidden and --lexicon: both are called {next(iter(hits))}; rename one of the files"
        )
    bounds = ask_bounds(asker, _rules(concepts, lexicons, hits, prompts), thresholds)
    places = (model, texts, prompts, *lexicons.values(), *hits.values())
    return Draft(
        kind="language",
        name=name_like(model),
        text=lambda name: language_params(
            name,
            model,
            texts,
            concepts,
            bounds,
            prompts=prompts or None,
            lexicons=lexicons | hits,
            hits=tuple(hits),
        ),
        places=tuple(place for place in places if place and here.path(place).exists()),
        found={"model": None, "texts": counts},
        notes=tuple(notes),
    )


def _read_model(here: Here, text: str, notes: list[str]) -> str:
    if not here.path(text).exists() and not Path(text).exists() and _HUB.fullmatch(text):
        if here.path(text.split("/")[0]).is_dir():
            raise ParamsError(
                f"--model {text!r}: nothing is there; name the model's folder, or one on the hub"
            )
        notes.append(f"model: {text} is taken for a name on the Hugging Face hub; the audit fetches it")
        return text
    place = here.place("--model", text)
    if not here.path(place).is_dir():
        raise ParamsError(
            f"--model {text!r}: is a file; name the folder that it lies in, with config and tokenizer"
        )
    check_language_model(here.path(place))
    return place


def _ask_concepts(asker: Asker, given: Sequence[str]) -> list[dict[str, str]]:
    concepts = [_read_concept(text) for text in given]
    if not concepts:
        question = "What may it be made to say? Such as doctor, or doctor:nurse to compare the two"
        concepts.append(asker(question, None, _read_concept, flag="--concept"))
        while asker.asks and (more := _more(asker, concepts)):
            concepts.append(more)
    labels = [concept["says"].strip() for concept in concepts]
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise ParamsError(f"--concept {twice!r}: is said twice; name each once")
    return concepts


def _about_spaces(folder: Path, concepts: Sequence[dict[str, str]]) -> str:
    """What to know of a tokenizer where a concept is spelled as it hardly ever says it; else nothing."""
    wanted = wants_space(folder)
    every = [text for concept in concepts for text in concept.values()]
    if wanted is True and (bare := next((text for text in every if not text.startswith(" ")), None)):
        return f"concepts: within a text this model says {' ' + bare!r}, and {bare!r} at its beginning alone"
    if wanted is False and (spaced := next((text for text in every if text.startswith(" ")), None)):
        return f"concepts: this tokenizer puts a space before every text; {spaced.strip()!r} is enough"
    return ""


def _more(asker: Asker, concepts: Sequence[dict[str, str]]) -> dict[str, str] | None:
    known = {concept["says"].strip() for concept in concepts}

    def read(text: str) -> dict[str, str] | None:
        concept = None if text.strip() in ("", NONE) else _read_concept(text)
        if concept and concept["says"].strip() in known:
            raise ParamsError(f"{text!r} is there already; name another, or none")
        return concept

    return asker("And what else (or none)", None, read, flag="--concept", default=NONE)


def _read_concept(text: str) -> dict[str, str]:
    says, colon, against = text.partition(":")
    if not says.strip() or (colon and not against.strip()):
        raise ParamsError(f"--concept {text!r}: write what it says, such as doctor, or doctor:nurse")
    # Spaces stay: for some tokenizers a word within a text begins with one.
    return {"says": says} | ({"against": against} if colon else {})


def _ask_lexicons(asker: Asker, given: Sequence[str], read: Callable[[str], str]) -> dict[str, str]:
    question = "Words whose part in it is to be told, a file with one a line (or none)"
    files = [read(text) for text in given]
    if not files and (file := asker(question, None, none_or(read), flag="--lexicon", default=NONE)):
        files.append(file)
    names = [name_like(file) for file in files]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ParamsError(f"--lexicon: two files are called {twice}; rename one of them")
    return dict(zip(names, files, strict=True))


def _rules(
    concepts: Sequence[dict[str, str]], lexicons: dict[str, str], hits: dict[str, str], prompts: str
) -> list[Bound]:
    """What such an audit can be held to; what no lexicon names may be harmless, so that it only warns."""
    rules = []
    for concept in concepts:
        scope = {
            key: text.strip() for key, text in zip(("concept", "against"), concept.values(), strict=False)
        }
        for name in lexicons:
            why = f"no word of {name} makes it say {scope['concept']}"
            rules.append(Bound("association.confirmed", "at_most", 0, why, scope | {"lexicon": name}))
        if not lexicons:
            why = f"what makes it say {scope['concept']} should be known"
            rules.append(Bound("association.confirmed", "at_most", 0, why, scope, severity="warn"))
    rules.append(Bound("glitch.tokens", "at_most", 0, "no token breaks the model"))
    for name in hits:
        rules.append(
            Bound("lexicon.hit_rate", "at_most", 0.05, "ordinary prompts lead to none", {"lexicon": name})
        )
    if prompts:
        why = "attribution names words that count"
        rules.append(Bound("attribution.over_random", "at_least", 0.0, why, severity="warn"))
    return rules
