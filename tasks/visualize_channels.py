"""Step: show the strongest channels of chosen layers, where params name layers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from prefect import task

from candling.audit.record import Artifact
from candling.errors import ModelError, ParamsError
from tasks.context import Context, Tick, write_findings
from tasks.examine import examine
from tasks.generate_prototypes import prototype_settings
from tasks.load_model import Subject, brought
from tasks.params import ChannelParams, Params
from tasks.pictures import audited_rows
from tasks.store import Stored

if TYPE_CHECKING:
    from candling.models import Classifier
    from candling.vision.climbing import Climb

__all__ = ["channel_settings", "check_layers", "counts_of_channels", "left_out", "visualize"]


def channel_settings(params: Params, channels: ChannelParams) -> Climb:
    """Those of the prototypes, but for the number of seeds."""
    first = params.seed * channels.seeds
    return replace(prototype_settings(params.prototypes, params.seed), seeds=channels.seeds, first=first)


def left_out(channels: ChannelParams | None, *, differentiable: bool) -> dict[str, str]:
    """A note where channels were asked for and cannot be had."""
    if channels is None or differentiable:
        return {}
    return {
        "left_out.channels": (
            "Channels of layers cannot be seen in a black box; the model's weights would add them."
        )
    }


def counts_of_channels(model: Classifier, params: Params) -> dict[str, int]:
    """How many channels each layer has that params name; nothing for a black box.

    Raises
    ------
    ParamsError
        If there is no such layer, or it has no channels.
    """
    from candling.vision.channels import channel_counts

    if params.channels is None or not model.differentiable:
        return {}
    try:
        return channel_counts(model, params.channels.layers, model.spec.image_size)
    except ModelError as error:
        raise ParamsError(f"channels: layers: {error}") from error


def check_layers(context: Context) -> None:
    """See that the model has the layers that params name, before anything is written.

    A model that cannot be loaded passes: to say so is a step's work.

    Raises
    ------
    ParamsError
        If there is no such layer, or it has no channels.
    """
    if context.params.channels is None:
        return
    with brought(context) as model:
        if model is not None:
            counts_of_channels(model, context.params)


@task(name="visualize channels")
def visualize(context: Context, subject: Subject) -> Stored:
    """The channels that decisions rest on most: each optimised, beside the pictures that excite it most."""
    dataset, settings = context.dataset, context.params.channels
    if settings is None:
        raise ValueError("params name no layers whose channels to show")
    engine = channel_settings(context.params, settings)

    def look(model: Classifier, out: Path, tick: Tick) -> None:
        from candling.models import check_differentiable
        from candling.vision.channels import strongest_channels, visualize_channels
        from candling.vision.prototypes import fit_prior
        from tasks.artifacts import picture

        if not model.differentiable:
            write_findings(out, [], notes=left_out(settings, differentiable=False))
            return
        check_differentiable(model, model.spec.image_size)
        everything = dataset.read("eval")
        pictures = everything.take(audited_rows(everything, dataset.audited))
        strong = strongest_channels(
            model, settings.layers, pictures.images, count=settings.strongest, pictures=settings.pictures
        )
        prior = fit_prior(everything.images, everything.clean)
        drawn = visualize_channels(model, strong, prior, engine, progress=tick)
        artifacts: list[Artifact] = []
        for one, optimised in zip(strong, drawn, strict=True):
            scope = {"layer": one.layer, "channel": str(one.channel)}
            name = f"pictures/channels/{settings.layers.index(one.layer)}-{one.channel}"
            for made in optimised:
                artifacts.append(
                    picture(
                        out,
                        f"{name}-optimised-{made.seed}",
                        made.image,
                        section="channels",
                        scope=scope | {"view": "optimised", "seed": str(made.seed)},
                        caption="optimised" if engine.seeds == 1 else f"optimised, seed {made.seed}",
                        values={
                            "activation": made.activation,
                            "evidence_over_average": one.over_average,
                            "usual_activation": one.usual,
                        },
                    )  # fmt: skip
                )
            for row, activation in zip(one.pictures.tolist(), one.activations.tolist(), strict=True):
                shown = dataset.classes[int(pictures.labels[row])]
                artifacts.append(
                    picture(
                        out,
                        f"pictures/channels/eval-{row}",
                        pictures.images[row],
                        section="channels",
                        scope=scope | {"view": "eval", "image": pictures.names[row], "class": shown},
                        caption=shown,
                        values={"activation": activation},
                    )
                )
        notes = {
            "channels.strongest": (
                f"of each layer the {settings.strongest} channels that carry most of the evidence for the "
                f"classes predicted for {len(pictures)} eval pictures"
            )
        }
        write_findings(out, [], artifacts, notes)

    return examine(
        context, "visualize channels", subject, ["eval"], look,
        module=__name__, settings=settings.model_dump(),
        prototypes=context.params.prototypes.model_dump(),
    )  # fmt: skip
