"""Step: compute the entanglement of every pair of classes from their prototypes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from candling.audit.record import Artifact, Measurement, measured
from tasks.context import Context, Tick, write_findings
from tasks.examine import examine
from tasks.load_model import Subject
from tasks.store import Stored

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from candling.models import Classifier
    from candling.statistics import Estimate
    from candling.vision.entanglement import Entanglement

__all__ = ["RATE", "WRITTEN", "attack_correlation", "compute_matrix", "left_out"]

RATE = 0.05  # false discoveries among the pairs that are called significant
WRITTEN = 3  # artifacts: the heat map, the table and the matrix
_RECORDED = 600  # pairs, the strongest, that a record holds; the table holds more of a thousand classes
_NAMED = 10  # pairs in a note


def left_out(*, prototypes: bool) -> dict[str, str]:
    """A note on what cannot be had without prototypes."""
    if prototypes:
        return {}
    return {"left_out.entanglement": "Entanglement is read off prototypes, of which there are none."}


@task(name="compute entanglement")
def compute_matrix(context: Context, subject: Subject, prototypes: Stored) -> Stored:
    """The matrix of the audited classes with intervals over seeds, its test, and what it is held against."""
    dataset, hierarchy = context.dataset, context.params.entanglement.hierarchy

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        import numpy as np
        import torch
        from safetensors.torch import load_file, save_file

        from candling.models import logits
        from candling.vision.entanglement import confusions, entanglement, rank_correlation

        rows = load_file(prototypes.path / "prototypes.safetensors")
        notes = left_out(prototypes=len(rows["classes"]) > 0)
        if notes:
            (note,) = notes.values()
            write_findings(out, [measured("entanglement.strongest_pair", None, note=note)], notes=notes)
            return
        pictures = dataset.read("eval")
        natural = logits(model, pictures.images)
        found = entanglement(rows["logits"], rows["classes"], natural, classes=dataset.audited)
        # For the step that holds it against the costs of attacks.
        save_file({"mutual": torch.from_numpy(found.mutual.copy())}, out / "mutual.safetensors")
        counts = confusions(pictures.labels.numpy(), natural.argmax(1).numpy(), np.array(dataset.audited))
        measurements = [
            *_matrix(found, dataset.names),
            _significant(found, dataset.names),
            _correlation("confusion", rank_correlation(found.mutual, counts=counts)),
        ]
        if len(dataset.classes) == 2:
            notes["entanglement.two_classes"] = (
                "With two classes what excites one inhibits the other: every entry is -1 by construction."
            )
        notes |= _surprises(model, found, dataset.names, dataset.classes, hierarchy)
        write_findings(out, measurements, _artifacts(found, dataset.names, out), notes)

    return examine(
        context, "compute entanglement", subject, ["eval"], look,
        module=__name__, prototypes=prototypes.digest, hierarchy=dict(hierarchy),
    )  # fmt: skip


def attack_correlation(entangled: Stored, costs: NDArray[np.float64]) -> Measurement:
    """The rank correlation of entanglement with the costs of attacks.

    Parameters
    ----------
    entangled
        What `compute_matrix` left.
    costs
        (K, K) of attacks from the row's audited class to the column's, such as the smallest ε; NaN where
        there is none.
    """
    from safetensors.torch import load_file

    from candling.vision.entanglement import rank_correlation

    file = entangled.path / "mutual.safetensors"
    if not file.is_file():
        return measured("entanglement.attack_correlation", None, note="there are no prototypes")
    return _correlation("attack", rank_correlation(load_file(file)["mutual"].numpy(), costs=costs))


def _matrix(found: Entanglement, names: tuple[str, ...]) -> list[Measurement]:
    """Both matrices, the strongest entries of so many classes that a record could not be read."""
    import numpy as np

    count = len(names)
    off = np.argwhere(~np.eye(count, dtype=bool))
    if len(off) > _RECORDED:
        strong = np.nan_to_num(found.value[off[:, 0], off[:, 1]], nan=-np.inf)
        off = off[np.sort(np.argsort(-strong, kind="stable")[:_RECORDED])]
    once = np.stack(np.triu_indices(count, 1), 1)
    if len(once) > _RECORDED:
        once = found.pairs()[:_RECORDED]
    pair = found.strongest_pair()
    note = "" if pair is None else f"{names[pair[0]]} → {names[pair[1]]}"
    return [
        *(
            measured(
                "entanglement.directed", found.estimate(c, k), {"from": names[c], "to": names[k]},
                note=_told(found.p[c, k], found.q[c, k]),
            )
            for c, k in off.tolist()
        ),
        *(
            measured(
                "entanglement.symmetric", found.mutual_estimate(c, k), {"class": names[c], "other": names[k]},
                note=_told(found.pair_p[c, k], found.pair_q[c, k]),
            )
            for c, k in once.tolist()
        ),
        measured("entanglement.strongest_pair", None if pair is None else pair[2], note=note),
    ]  # fmt: skip


def _told(p: float, q: float) -> str:
    return "" if p != p else f"p {p:.2g}, q {q:.2g}"


def _significant(found: Entanglement, names: tuple[str, ...]) -> Measurement:
    """The share of pairs that excite each other more than unrelated classes do."""
    import numpy as np

    tested = int((~np.isnan(found.pair_p)).sum()) // 2
    if not tested:
        note = "too few classes with prototypes to tell what is more than unrelated classes do"
        return measured("entanglement.significant_pairs", None, note=note)
    pairs = found.significant(RATE).tolist()
    named = "; ".join(f"{names[c]} and {names[k]}" for c, k in pairs[:_NAMED])
    more = f"; {len(pairs) - _NAMED} more" if len(pairs) > _NAMED else ""
    note = f"{len(pairs)} of {tested}{': ' if pairs else ''}{named}{more}"
    share = len(pairs) / tested
    return measured("entanglement.significant_pairs", (share, share, share, tested), note=note)


def _correlation(what: str, estimate: Estimate | None) -> Measurement:
    note = "" if estimate is not None else "too few pairs of classes that differ in it"
    return measured(f"entanglement.{what}_correlation", estimate, note=note)


def _surprises(
    model: Classifier,
    found: Entanglement,
    names: tuple[str, ...],
    known: tuple[str, ...],
    hierarchy: dict[str, str],
) -> dict[str, str]:
    """A note on pairs that neither names nor the head's weights nor the hierarchy explain."""
    import numpy as np

    from candling.vision.entanglement import (
        embedding_similarity,
        head_weights,
        hierarchy_similarity,
        name_similarity,
        surprising,
    )

    if np.isnan(found.pair_p).all():
        return {}
    alike = {"names": name_similarity(names)}
    if hierarchy:
        alike["the hierarchy"] = hierarchy_similarity(names, hierarchy, known)
    weights = head_weights(model, len(known))
    if weights is not None:
        alike["weights of the head"] = embedding_similarity(weights)[np.ix_(found.classes, found.classes)]
    listed = surprising(found, list(alike.values()), rate=RATE)
    pairs = "; ".join(f"{names[c]} and {names[k]} ({by:.1f})" for c, k, by in listed[:_NAMED]) or "none"
    return {
        "entanglement.surprising": (
            f"Significantly entangled beyond what {', '.join(alike)} explain, with the residual in standard "
            f"deviations: {pairs}."
        )
    }


def _artifacts(found: Entanglement, names: tuple[str, ...], out: Path) -> list[Artifact]:
    import numpy as np
    import pandas as pd

    from candling.vision.entanglement import TOP, directed_table, draw
    from tasks.artifacts import drawing, table

    # Columns are places: names need not be column names that every reader of Parquet takes.
    matrix = pd.DataFrame(found.value.astype(np.float32), columns=[str(k) for k in range(len(names))])
    matrix.insert(0, "class", list(names))

    return [
        drawing(
            out, "pictures/entanglement", draw(found, names, rate=RATE), section="entanglement",
            caption="prototypes of the row's class, what they excite; dots: significant pairs",
        ),
        table(
            out, "entanglement", directed_table(found, names), section="entanglement",
            caption=f"of each class the {TOP} that its prototypes excite most",
        ),
        table(
            out, "entanglement-matrix", matrix, section="entanglement",
            caption="every class by every class, rows the prototypes", scope={"view": "matrix"},
        ),
    ]  # fmt: skip
