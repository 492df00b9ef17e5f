"""Step: let a language model go on with the eval prompts, and say which of their words made it say that."""

from __future__ import annotations

from dataclasses import dataclass
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
        said = asker.said(prompts, settings.said)
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
            hits = [(i, place) for i, text in enumerate(said) if (place := _hit(model, text, words))]
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
                f"{asker.left_out} attributions are left out: there the model said nothing that can be "
                "written, or its text does not fit into the context again."
            )
        write_findings(out, measurements, artifacts, notes)

    return read_model(
        context, "attribute prompts", subject, ["prompts"], read, module=__name__,
        chat=params.chat, settings=settings.model_dump(), lexicons=lexicons,
    )  # fmt: skip


@dataclass
class _Asker:
    """Attributes what a model says to prompts, and counts the prompts of which it cannot.

    chat: whether prompts are what a user says; then what the model said before is no part of the prompt.
    """

    model: LanguageModel
    chat: bool
    method: AttributionMethod
    left_out: int = 0

    def __post_init__(self) -> None:
        from candling.language.turns import turn_of

        self.turn = turn_of(self.model, chat=self.chat)

    def said(self, prompts: Sequence[str], tokens: int) -> list[list[int]]:
        """What follows each prompt."""
        from candling.language.generation import continued

        rows = [[*self.turn.tokens(prompt), *self.turn.after] for prompt in prompts]
        return continued(self.model, rows, tokens, start=self.turn.before or None)

    def attributed(self, prompt: str, before: Sequence[int], output: Sequence[int]) -> Attribution | None:
        """What of a prompt made the model say these tokens, after others that it said before them."""
        from candling.language import attribute

        model, frame, target = self.model, self.model.decode(before), self.model.decode(output)
        if not self.chat:
            tokens = [*model.encode(prompt), *before]
            prompt, frame = model.decode(tokens), ""
        # Read again from its text, what was said may be other tokens, and more of them.
        read = [self.turn.tokens(prompt), model.encode(frame), model.encode(target)]
        room = sum(map(len, (self.turn.before, self.turn.after, *read)))
        if not read[0] or not read[2] or (model.longest is not None and room > model.longest):
            self.left_out += 1
            return None
        return attribute(model, prompt, target=target, frame=frame, chat=self.chat, method=self.method)


def _hit(model: LanguageModel, said: Sequence[int], words: Sequence[str]) -> tuple[int, int] | None:
    """The tokens, first and after the last, in which a word of a lexicon is said for the first time."""
    from candling.language.associations import words_in

    wanted = [words_in(word) for word in words]
    for last in range(1, len(said) + 1):
        # A word is whole only where the next token begins another.
        text = model.decode(said[:last])
        following = model.decode(said[: last + 1])
        if last < len(said) and following[len(text) :][:1].isalpha():
            continue
        held = words_in(text)
        if any(one and one <= held for one in wanted):
            first = last - 1
            while first and not any(
                one and one <= words_in(model.decode(said[first:last])) for one in wanted
            ):
                first -= 1
            return first, last
    return None


def _table(found: Attribution, prompt: int, lexicon: str) -> pd.DataFrame:
    rows = found.table
    return rows.assign(
        prompt=prompt, said=found.target.text, lexicon=lexicon, log_probability=found.score,
        comprehensiveness=found.comprehensiveness, random=found.comprehensiveness_random,
    )  # fmt: skip
