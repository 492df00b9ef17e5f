"""Does a network that answers a known pattern give that pattern back?

    python -m benchmarks.planted [--quick] [--json FILE] [--only NAME…] [--sheets FOLDER]

Five patterns are planted: stripes of two angles, a colour, two drawn glyphs. Three networks tell them apart:
``matched`` by construction, with filters that are the patterns; a small residual network ``cnn`` and a small
vision transformer ``vit``, trained here in seconds on noise that looks like photographs. Half of their
training pictures have a pattern pasted in somewhere; into the others go decoys (stripes of another angle or
width, other hues, other lines through the same corners, glyphs out of focus), so that the class depends on
the pattern and not on a part of it.

Prototypes are made by the defaults of ``fourier`` and ``maco``, and with a penalty of pixels; what they have
of a pattern is a correlation with it (`Pattern.recovery`). Chance is the same number for prototypes of the
network's other classes, for noise that looks like photographs, and for prototypes of a network with random
weights; the last not for the colour, since any network prefers some hue.

- `planted_recovery_over_chance.<network>.<parameterisation>.<pattern>`: mean correlation of a class's
  prototypes with its pattern, over the largest that chance gave; low and high are over seeds.

Takes two minutes on two cores; `--quick` leaves out the transformer. `--sheets` writes the prototypes, a
sheet for each network and parameterisation.
"""

from __future__ import annotations

import abc
import argparse
import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from scipy.stats import mannwhitneyu
from torch import Tensor, nn
from torchvision.models import VisionTransformer
from torchvision.transforms.functional import pil_to_tensor

from candling.vision.climbing import FOURIER, MACO, Climb, row_generator
from candling.vision.gallery import contact_sheet
from candling.vision.networks import ResidualCNN
from candling.vision.parameterisations import backgrounds
from candling.vision.priors import natural_prior
from candling.vision.prototypes import Prototypes, generate_prototypes
from candling.vision.regularisers import blur

__all__ = [
    "PATTERNS",
    "PLAIN",
    "SETTINGS",
    "SIDE",
    "Colour",
    "Glyph",
    "Matched",
    "Pattern",
    "Recovery",
    "Stripes",
    "cnn",
    "main",
    "recover",
    "samples",
    "sheet",
    "train",
    "trained_cnn",
    "trained_vit",
    "vit",
]

Row = dict[str, object]

SIDE = 48  # pixels of a picture
BOX = 21  # pixels of what is pasted into it, and of the filters that read it
NOISE = 24  # pictures of noise that chance is measured on

SETTINGS: dict[str, Climb] = {
    "fourier": FOURIER,
    "maco": MACO,
    # Pixels know nothing of pictures: they get the plainest regulariser, and starts that show something.
    "pixels": Climb(
        parameterisation="pixels", contrast=0.5, fall=0.0, starts=8, robustness="m", total_variation=1.0
    ),
}

_FLAT = 0.01  # contrast of a place, below which a correlation with it means nothing
_FAINT = 0.1  # saturation of a place, below which its hue means nothing
_FINE = 4.0  # pixels, the standard deviation of the blur that is taken off before glyphs are looked for
_EDGE = BOX // 3  # pixels of grey around a picture, so that a pattern counts that its edge cuts off


# -- Patterns --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pattern(abc.ABC):
    """Something that can be drawn, read by filters and looked for.

    `distinct`: whether an untrained network has no reason to like it. A colour is little more than a hue,
    every network prefers some hue, and that of an untrained one is often enough near the planted one.
    """

    name: str
    distinct: ClassVar[bool] = True

    @abc.abstractmethod
    def drawn(self, generator: torch.Generator) -> Tensor:
        """What is added to a picture: (3, BOX, BOX) in [-1, 1]; random in what does not matter."""

    @abc.abstractmethod
    def decoy(self, generator: torch.Generator) -> Tensor:
        """Something alike that it is not: (3, BOX, BOX) in [-1, 1]."""

    @abc.abstractmethod
    def filters(self) -> Tensor:
        """What answers it: (F, 3, BOX, BOX), each of length 1 and mean 0."""

    @abc.abstractmethod
    def recovery(self, images: Tensor) -> Tensor:
        """Highest correlation (R,) with it of any place of images (R, 3, H, W) in [0, 1]."""


@dataclass(frozen=True)
class Stripes(Pattern):
    """Grey stripes that fade out: cycles down and across over SIDE pixels."""

    down: float
    across: float

    def drawn(self, generator: torch.Generator) -> Tensor:
        return _wave(self.down, self.across, _uniform(generator, 0, 2 * math.pi))

    def decoy(self, generator: torch.Generator) -> Tensor:
        """Turned by 22 to 67 degrees, or twice as wide or narrow."""
        phase = _uniform(generator, 0, 2 * math.pi)
        if _uniform(generator) < 0.4:
            scale = 0.5 if _uniform(generator) < 0.5 else 2.0
            return _wave(scale * self.down, scale * self.across, phase)
        turn = _uniform(generator, 0.25, 0.75) * math.pi / 2 * (1 if _uniform(generator) < 0.5 else -1)
        cos, sin = math.cos(turn), math.sin(turn)
        return _wave(cos * self.down + sin * self.across, cos * self.across - sin * self.down, phase)

    def filters(self) -> Tensor:
        # Four phases, of which any wave excites one or two: its energy, wherever it begins.
        phases = [_wave(self.down, self.across, turn * math.pi / 2) for turn in range(4)]
        return torch.stack([_unit(phase) for phase in phases])

    def recovery(self, images: Tensor) -> Tensor:
        """With the best place's grey, wherever the stripes begin."""
        grey = _framed(images).mean(1, keepdim=True)
        phases = [_wave(self.down, self.across, turn)[:1] for turn in (0.0, math.pi / 2)]
        both = torch.stack([_correlations(grey, phase) for phase in phases])
        return both.square().sum(0).sqrt().flatten(1).amax(1)


@dataclass(frozen=True)
class Colour(Pattern):
    """A soft spot of a hue, in degrees: red is 0, green 120, blue 240; as bright as what it lies on."""

    hue: float
    distinct: ClassVar[bool] = False

    def drawn(self, generator: torch.Generator) -> Tensor:
        return _spot(self.hue)

    def decoy(self, generator: torch.Generator) -> Tensor:
        """Another hue."""
        return _spot(self.hue + _uniform(generator, 45, 315))

    def filters(self) -> Tensor:
        return _unit(_spot(self.hue))[None]

    def recovery(self, images: Tensor) -> Tensor:
        """With the best place's colours, its grey left out."""
        spot, colours = _spot(self.hue), _framed(images - images.mean(1, keepdim=True), 0.0)
        energy = F.conv2d(colours.square(), torch.ones_like(spot)[None]) + _FAINT**2 * BOX**2
        return (F.conv2d(colours, spot[None]) / (energy.sqrt() * spot.norm())).flatten(1).amax(1)


@dataclass(frozen=True)
class Glyph(Pattern):
    """A bright shape: a line through corners (x, y), in parts of BOX."""

    corners: tuple[tuple[float, float], ...]

    def drawn(self, generator: torch.Generator) -> Tensor:
        return _line(self.corners).expand(3, -1, -1)

    def decoy(self, generator: torch.Generator) -> Tensor:
        """Out of focus, or a line through the same corners in another order, some of them elsewhere."""
        if _uniform(generator) < 0.25:
            return 2 * blur(self.drawn(generator)[None], _uniform(generator, 0.08, 0.2))[0]
        places = torch.rand(len(self.corners), 2, generator=generator) * 0.8 + 0.1
        moved = torch.rand(len(self.corners), generator=generator) < 0.5
        order = torch.randperm(len(self.corners), generator=generator).tolist()
        corners = [tuple(places[i].tolist()) if moved[i] else self.corners[i] for i in order]
        return _line(tuple(corners)).expand(3, -1, -1)

    def filters(self) -> Tensor:
        return _unit(_line(self.corners).expand(3, -1, -1))[None]

    def recovery(self, images: Tensor) -> Tensor:
        """With the best place's grey, without what is coarse in both."""
        fine = _fine(_framed(images).mean(1, keepdim=True))
        shape = _fine(_line(self.corners)[None, None])[0]
        return _correlations(fine, shape).flatten(1).amax(1)


@functools.cache
def _window() -> Tensor:
    """(BOX, BOX), 1 in the middle and falling off to the edges."""
    place = torch.arange(BOX) - BOX // 2
    falling = torch.exp(-0.5 * (place / (BOX / 4)).square())
    return falling[:, None] * falling


def _wave(down: float, across: float, phase: float) -> Tensor:
    """Grey stripes (3, BOX, BOX) in [-1, 1]."""
    place = torch.arange(BOX) - BOX // 2
    angle = 2 * math.pi / SIDE * (down * place[:, None] + across * place)
    return (torch.cos(angle + phase) * _window()).expand(3, -1, -1)


def _spot(hue: float) -> Tensor:
    """A spot (3, BOX, BOX) in [-1, 1] whose channels add up to 0."""
    turned = torch.deg2rad(hue - 120 * torch.arange(3.0))
    return torch.cos(turned)[:, None, None] * _window()


@functools.lru_cache(16)
def _line(corners: tuple[tuple[float, float], ...]) -> Tensor:
    """A line three pixels wide: (BOX, BOX) in [0, 1]."""
    finer = 4
    drawing = Image.new("L", (finer * BOX, finer * BOX))
    points = [(finer * BOX * x, finer * BOX * y) for x, y in corners]
    ImageDraw.Draw(drawing).line(points, fill=255, width=3 * finer, joint="curve")
    return pil_to_tensor(drawing.resize((BOX, BOX), Image.Resampling.BOX))[0] / 255


def _framed(images: Tensor, grey: float = 0.5) -> Tensor:
    return F.pad(images, (_EDGE, _EDGE, _EDGE, _EDGE), value=grey)


def _fine(planes: Tensor) -> Tensor:
    return planes - blur(planes, _FINE / max(planes.shape[2:]))


def _unit(weights: Tensor) -> Tensor:
    return F.normalize((weights - weights.mean()).flatten(), dim=0).view_as(weights)


def _correlations(images: Tensor, template: Tensor) -> Tensor:
    """Correlation (R, 1, h', w') of a template (1, h, w) with each place of images (R, 1, H, W)."""
    template, count = template - template.mean(), template.numel()
    everywhere = torch.ones_like(template)[None]
    variance = F.conv2d(images.square(), everywhere) - F.conv2d(images, everywhere).square() / count
    return F.conv2d(images, template[None]) / ((variance + _FLAT**2 * count).sqrt() * template.norm())


def _uniform(generator: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


PATTERNS: tuple[Pattern, ...] = (
    Stripes("rising stripes", 5, 5),
    Stripes("falling stripes", -5, 5),
    # Photographs, and noise that looks like them, go from orange to blue; violet is rare there.
    Colour("violet", 300),
    Glyph("triangle", ((0.5, 0.12), (0.9, 0.85), (0.1, 0.85), (0.5, 0.12), (0.9, 0.85))),
    Glyph("cross", ((0.5, 0.1), (0.5, 0.9), (0.5, 0.5), (0.1, 0.5), (0.9, 0.5))),
)
PLAIN = len(PATTERNS)  # the class of pictures without any


# -- Networks --------------------------------------------------------------------------------------


class Matched(nn.Module):
    """Its class depends on the pattern by construction.

    A filter's answer is divided by the contrast of the place, so that it is a correlation, and rectified; a
    class's logit is the mean over places of the fourth power, to which the best places give most.

    Parameters
    ----------
    seed
        For filters of random weights instead; None: the patterns'.
    """

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        groups = [pattern.filters() for pattern in PATTERNS]
        filters = torch.cat(groups)
        if seed is not None:
            random = torch.randn(filters.shape, generator=torch.Generator().manual_seed(seed))
            filters = torch.stack([_unit(one) for one in random])
        self.read = nn.Conv2d(3, len(filters), BOX, bias=False)
        self.read.weight.data = filters
        owners = torch.repeat_interleave(torch.tensor([len(group) for group in groups]))
        self.register_buffer("owners", F.one_hot(owners).float())

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, patterns) of images (N, 3, H, W) in [0, 1]."""
        centred = images - 0.5
        energy = F.avg_pool2d(centred.square().sum(1, keepdim=True), BOX, stride=1) * BOX**2
        answers = F.relu(self.read(centred)).square() / (energy + 1)
        energies = torch.einsum("nfhw,fk->nkhw", answers, self.owners)
        return 100 * energies.square().mean((2, 3))


class _Centred(nn.Module):
    """Images in [0, 1] are brought to about -2 to 2 for a network within."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.network((images - 0.5) / 0.25)
        return out


def cnn(seed: int = 0) -> nn.Module:
    """A small residual network with random weights that answers what its best place shows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        residual = ResidualCNN(PLAIN + 1, (16, 32, 48))
    best = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
    return _Centred(nn.Sequential(residual.stem, residual.stages, best, residual.head)).eval()


def vit(seed: int = 0) -> nn.Module:
    """A small vision transformer with random weights: two layers, four heads, patches of 8 pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = VisionTransformer(SIDE, 8, 2, 4, 64, 128, num_classes=PLAIN + 1)
        # torchvision's head begins with zeros, which no gradient passes.
        nn.init.trunc_normal_(network.heads[-1].weight, std=0.02)
    return _Centred(network).eval()


def samples(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Training pictures (N, 3, SIDE, SIDE) in [0, 1] and their classes (N,), half of them PLAIN."""
    images = backgrounds(natural_prior((SIDE, SIDE)), generator, count)
    contrast = 0.2 + 0.6 * torch.rand(count, 1, 1, 1, generator=generator)
    images = 0.5 + contrast * (images - 0.5)
    classes = torch.randint(2 * PLAIN, (count,), generator=generator)
    for image, number in zip(images, classes.tolist(), strict=True):
        pattern = PATTERNS[number % PLAIN]
        drawn = pattern.drawn(generator) if number < PLAIN else pattern.decoy(generator)
        top, left = torch.randint(SIDE - BOX + 1, (2,), generator=generator).tolist()
        image[:, top : top + BOX, left : left + BOX] += _uniform(generator, 0.25, 0.75) * drawn
    return images.clamp(0, 1), classes.clamp_max(PLAIN)


def train(network: nn.Module, steps: int, rate: float, seed: int = 0) -> nn.Module:
    """Teach a network the patterns, in place."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=0.02)
    network.train()
    for step in range(steps):
        images, classes = samples(64, generator)
        warm, falling = min(1.0, (step + 1) / (0.1 * steps)), 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.param_groups[0]["lr"] = rate * warm * falling
        optimiser.zero_grad()
        F.cross_entropy(network(images), classes).backward()
        optimiser.step()
    return network.eval()


def trained_cnn() -> nn.Module:
    """The residual network, which knows the patterns after ten seconds."""
    return train(cnn(), 400, 3e-3)


def trained_vit() -> nn.Module:
    """The transformer, which takes three quarters of a minute."""
    return train(vit(), 1200, 1.5e-3)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "matched": (Matched, lambda: Matched(seed=1)),
    "cnn": (trained_cnn, lambda: cnn(seed=1)),
    "vit": (trained_vit, lambda: vit(seed=1)),
}


# -- Recovery --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recovery:
    """What prototypes of a pattern's class have of it (S,), a value a seed, and what chance gives (n,)."""

    pattern: Pattern
    own: Tensor
    chance: Tensor

    @property
    def found(self) -> bool:
        """Whether seeds are above chance by an exact Mann-Whitney test, one-sided at 0.001."""
        test = mannwhitneyu(self.own.numpy(), self.chance.numpy(), alternative="greater", method="exact")
        return bool(test.pvalue < 0.001)


def recover(
    network: nn.Module, untrained: nn.Module, settings: Climb, seeds: int = 4
) -> tuple[Prototypes, list[Recovery]]:
    """Prototypes of all patterns, class by class, and what they have of their patterns.

    Parameters
    ----------
    network
        Its first classes are `PATTERNS`.
    untrained
        Another with random weights; half as many of its prototypes are looked at.
    settings
        `seeds` are taken instead of theirs.
    """
    prior = natural_prior((SIDE, SIDE))
    classes = range(PLAIN)
    made = generate_prototypes(network, classes, prior, settings=replace(settings, seeds=seeds))
    blind = generate_prototypes(untrained, classes, prior, settings=replace(settings, seeds=seeds // 2 or 1))
    noise = backgrounds(prior, row_generator("noise"), NOISE)
    found = []
    for number, pattern in enumerate(PATTERNS):
        values, own = pattern.recovery(made.images / 255), made.classes == number
        chance = [values[~own], pattern.recovery(noise)]
        if pattern.distinct:
            chance.append(pattern.recovery(blind.images / 255))
        found.append(Recovery(pattern, values[own], torch.cat(chance)))
    return made, found


def sheet(made: Prototypes, found: Sequence[Recovery]) -> Image.Image:
    """Prototypes of `recover`, each above its pattern's name and its correlation with it."""
    captions = [f"{one.pattern.name}\n{value:.2f}" for one in found for value in one.own.tolist()]
    return contact_sheet(made.images, captions, columns=8)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write rows and sheets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="without the transformer")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs="+", default=[], help="rows whose name holds one of these")
    parser.add_argument("--sheets", type=Path, help="a folder for the prototypes")
    given = parser.parse_args(arguments)
    rows: list[Row] = []
    print(f"{'name':66} {'mean':>6} {'least':>6} {'chance':>14} {'ratio':>6}")
    for label, (make, make_untrained) in NETWORKS.items():
        names = {form: f"planted_recovery_over_chance.{label}.{form}" for form in SETTINGS}
        # A name of a single pattern asks for its whole group, whose other classes are its chance.
        wanted = [
            form for form, name in names.items()
            if not given.only or any(one in name or one.startswith(name) for one in given.only)
        ]  # fmt: skip
        if not wanted or (given.quick and label == "vit"):
            continue
        network, untrained = make(), make_untrained()
        for form in wanted:
            made, found = recover(network, untrained, SETTINGS[form])
            rows += [_row(names[form], one) for one in found]
            if given.sheets:
                given.sheets.mkdir(parents=True, exist_ok=True)
                sheet(made, found).save(given.sheets / f"{label}-{form}.png")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _row(group: str, found: Recovery) -> Row:
    """A row of the JSON, which is printed too."""
    name = f"{group}.{found.pattern.name.replace(' ', '_')}"
    most = float(found.chance.max())
    value, low, high = (float(one) / most for one in (found.own.mean(), found.own.min(), found.own.max()))
    chance = f"{found.chance.median():.2f} to {most:.2f}"
    print(f"{name:66} {found.own.mean():6.2f} {found.own.min():6.2f} {chance:>14} {value:6.2f}")
    return {"name": name, "value": value, "low": low, "high": high, "n": len(found.own),
            "unit": "ratio of correlations", "goal": ">= 1"}  # fmt: skip


if __name__ == "__main__":
    main()
