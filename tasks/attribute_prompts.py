"""Step: let a language model go on with the eval prompts, and say which of their words made it say that."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from candling.audit.record import Measurement, measured
from tasks.context import Tick, write_findings
from tasks.language_context import LanguageContext, read_model
from tasks.load_model import Subject
from tasks.read_texts import read_located
from tasks.store import Stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from candling.language import Attribution, LanguageModel
    from candling.language.attribution import AttributionMethod

__all__ = ["attribute_prompts"]


@task(name="attribute prompts")
def attribute_prompts(context: LanguageContext, subject: Subject) -> Stored:
    """Attribute what follows each eval prompt to its words, and each word of a lexicon that follows."""
    params = context.params
    settings = params.attribution
    lexicons = {name: words for name, words in params.listed(context.root).items() if name in params.hits}

    def read(model: LanguageModel, out: Path, tick: Tick) -> None:
        import numpy as np
        import pandas as pd

        from candling.statistics import mean, proportion
        from tasks.artifacts import table

        located = context.dataset.splits.get("prompts")
        if located is None:
            note = "Nothing is attributed: name a file of prompts under prompts:, one a line."
            write_findings(out, [], notes={"left_out.attribution": note})
            return
        prompts = read_located(located)
        asker = _Asker(model, params.chat, settings.method)
        said = asker.said(prompts, settings.said + 1)
        found: list[Attribution] = []
        rows: list[pd.DataFrame] = []
        few = min(settings.prompts, len(prompts))
        for i in range(few):
            one = asker.attributed(prompts[i], [], said[i][: settings.tokens])
            if one is not None:
                found.append(one)
                rows.append(_table(one, i, ""))
            tick(i + 1, few)
        measurements: list[Measurement] = []
        if found:
            figures = np.array(
                [(a.comprehensiveness, a.comprehensiveness_random, a.sufficiency) for a in found]
            )
            measurements += [
                measured("attribution.comprehensiveness", mean(figures[:, 0])),
                measured("attribution.over_random", mean(figures[:, 0] - figures[:, 1])),
                measured("attribution.sufficiency", mean(figures[:, 2])),
            ]
        for name, words in lexicons.items():
            hits = [
                (i, place)
                for i, text in enumerate(said)
                if (place := _hit(model, text, words, settings.said))
            ]
            rate = proportion(len(hits), len(prompts))
            measurements.append(measured("lexicon.hit_rate", rate, {"lexicon": name}))
            for i, (first, last) in hits[: settings.prompts]:
                one = asker.attributed(prompts[i], said[i][:first], said[i][first:last])
                if one is not None:
                    rows.append(_table(one, i, name))
        artifacts = []
        if rows:
            every = pd.concat(rows, ignore_index=True)
            caption = f"{len(found)} prompts, {settings.method}"
            artifacts = [table(out, "tables/attributions", every, section="attribution", caption=caption)]
        notes: dict[str, str] = {}
        if asker.left_out:
            notes["left_out.attributions"] = (
                f"{asker.left_out} attributions are left out: the model said nothing, or the prompt is empty."
            )
        write_findings(out, measurements, artifacts, notes)

    return read_model(
        context, "attribute prompts", subject, ["prompts"], read, module=__name__,
        chat=params.chat, settings=settings.model_dump(), lexicons=lexicons,
    )  # fmt: skip


class _Asker:
    """Asks a model prompts, and attributes what it says to them.

    chat: whether prompts are what a user says; then what the model said before is no part of the prompt.
    left_out: how often there was nothing to attribute, or nothing to attribute it to.
    """

    def __init__(self, model: LanguageModel, chat: bool, method: AttributionMethod) -> None:
        from candling.language.turns import turn_of

        self.model, self.chat, self.method, self.left_out = model, chat, method, 0
        self.turn = turn_of(model, chat=chat)

    def said(self, prompts: Sequence[str], tokens: int) -> list[list[int]]:
        """What follows each prompt."""
        from candling.language.generation import continued

        found = []
        for prompt in prompts:
            before, own, after = self.turn.placed(prompt)
            found.append([*before, *own, *after])
        # Rows of their own beginnings: none is put before them again.
        return continued(self.model, found, tokens, start=())

    def attributed(self, prompt: str, before: Sequence[int], output: Sequence[int]) -> Attribution | None:
        """What of a prompt made the model say these tokens, after others that it said before them."""
        from candling.language import attribute

        own = self.turn.placed(prompt).tokens
        if not self.chat:
            own, before = [*own, *before], []
        if not own or not output:
            self.left_out += 1
            return None
        given: str | list[int] = prompt if self.chat else own
        return attribute(
            self.model, given, target=list(output), frame=list(before), chat=self.chat, method=self.method
        )


def _hit(
    model: LanguageModel, said: Sequence[int], words: Sequence[str], most: int
) -> tuple[int, int] | None:
    """The tokens, first and after the last, in which a word of a lexicon is said for the first time.

    said: one token more than the `most` that are looked at, unless it ended: a word is whole only where the
    next token begins another.
    """
    from candling.language.associations import holds

    def text(first: int, last: int) -> str:
        return model.decode([token for token in said[first:last] if token not in model.special])

    for last in range(1, min(most, len(said)) + 1):
        here = text(0, last)
        if text(0, last + 1)[len(here) :][:1].isalpha():
            continue
        if any(holds(here, one) for one in words):
            first = last - 1
            while first and not any(holds(text(first, last), one) for one in words):
                first -= 1
            return first, last
    return None


def _table(found: Attribution, prompt: int, lexicon: str) -> pd.DataFrame:
    rows = found.table
    return rows.assign(
        prompt=prompt, said=found.target.text, lexicon=lexicon, log_probability=found.score,
        comprehensiveness=found.comprehensiveness, random=found.comprehensiveness_random,
    )  # fmt: skip
