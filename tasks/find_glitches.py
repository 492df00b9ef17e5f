"""Step: look for glitch tokens, after which a language model says one and the same thing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from candling.audit.record import Finding, measured
from tasks.context import Tick, write_findings
from tasks.language_context import LanguageContext, read_model
from tasks.load_model import Subject
from tasks.read_texts import read_located
from tasks.store import Stored

if TYPE_CHECKING:
    from candling.language import LanguageModel

__all__ = ["find_glitches"]

_SHOWN = 5  # of the tokens that are none


@task(name="find glitches")
def find_glitches(context: LanguageContext, subject: Subject) -> Stored:
    """Put each token into ordinary texts, and see what the model expects two tokens later."""
    settings = context.params.glitches

    def read(model: LanguageModel, out: Path, tick: Tick) -> None:
        from candling.language.glitches import glitch_tokens
        from tasks.artifacts import table

        texts = read_located(context.dataset.splits["texts"])[: settings.texts]
        found = glitch_tokens(model, texts, settings=settings.settings(), progress=tick)
        count = float(found.glitch.sum())
        names = ", ".join(found.piece[found.glitch])
        measurements = [measured("glitch.tokens", (count, count, count, len(found)), note=names)]
        findings = []
        for row in found.head(int(count) + _SHOWN).to_dict("records"):
            scope = {"token": str(row["piece"]), "says": str(row["says"])}
            rise = (float(row["rise"]), float(row["low"]), float(row["high"]), int(row["n"]))
            measurements.append(measured("glitch.rise", rise, scope))
            if row["glitch"]:
                statement = (
                    f"After “{row['piece']}” the model says “{row['says']}”, wherever it stands: its "
                    f"probability rises by {row['rise']:.2f}, in {row['share']:.0%} of {row['n']} texts."
                )
                findings.append(
                    Finding(
                        id=f"glitch.{row['token']}",
                        kind="weakness",
                        scope={"token": str(row["piece"])},
                        status="confirmed",
                        statement=statement,
                        evidence=(measurements[-1],),
                    )  # fmt: skip
                )
        made = table(out, "tables/glitches", found, section="glitches", caption="every token that was tried")
        note = {
            "glitches.tried": f"{len(found)} of {model.vocabulary} tokens were tried in {len(texts)} texts"
        }
        write_findings(out, measurements, [made], note, findings)

    return read_model(
        context, "find glitches", subject, ["texts"], read, module=__name__, settings=settings.model_dump(),
    )  # fmt: skip
