"""What the optimiser moves, and how it becomes a picture.

``Pixels`` moves decorrelated colours of each pixel: the plainest there is, and a way to noise. ``Fourier``
moves the coefficients of each frequency in parts of what pictures have there, so that all frequencies are
as easy to reach (Olah et al., "Feature Visualization", Distill 2017, section "Preconditioning"): what the
model does not ask for stays plain. ``Maco`` fixes the magnitude of each frequency to that of the data,
around its mean picture, and moves the phase alone (MACO, Fel et al. 2023, arXiv 2306.06805, section 3):
nothing can saturate, and what the model does not ask for stays noise with a natural spectrum.

All three work on logits of RGB with decorrelated colours. With ``alpha`` one more plane is drawn, the
opacity: what need not be there for the model to answer, whatever is behind, can become transparent (Distill
2018, "Differentiable Image Parameterizations", section "Semi-transparent patterns").
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from candling.errors import DataError
from candling.vision.priors import Prior, isotropic, mirrored, natural_prior, to_logits

__all__ = ["Fourier", "Maco", "Parameterisation", "Pixels", "backgrounds", "composite"]

# Standard deviation of the logit of opacity at contrast 1: from 0.1 to 0.9 of opacity.
_OPACITY = 2.0


@dataclass(frozen=True, eq=False)
class _Tables(Prior):
    """A prior with the opacity's plane, and how many frequencies each column of its spectrum stands for."""

    fold: Tensor


@dataclass(frozen=True, eq=False)
class Parameterisation(abc.ABC):
    """Drawn tensors to images and back; each row of a batch by itself.

    `contrast` is the scale of what is drawn to begin with, and stays that of the picture for ``Maco``.
    `travel` is how far what is drawn moves in a climb, about, and `stride` the most that it moves in a step.
    """

    prior: Prior
    contrast: float
    alpha: bool = False
    # What rendering needs, by device and type: made once, read at each step.
    _tables: dict[tuple[torch.device, torch.dtype], _Tables] = field(
        default_factory=dict, init=False, repr=False
    )
    travel: ClassVar[float]
    stride: ClassVar[float]

    def learning_rate(self, steps: int) -> float:
        """What suits Adam at the start of a climb of so many steps, in the units of what is drawn."""
        return min(self.stride, self.travel / steps)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.prior.size

    @property
    def channels(self) -> int:
        """Channels of the images, the opacity not counted."""
        return self.prior.channels

    @abc.abstractmethod
    def draw(self, generator: torch.Generator, count: int = 1) -> Tensor:
        """Draw noise to start from: (count, …) float32 on the generator's device."""

    @abc.abstractmethod
    def render(self, drawn: Tensor) -> Tensor:
        """Images (R, C, H, W) in [0, 1] of what was drawn (R, …); with alpha (R, C + 1, H, W).

        Differentiable once.
        """

    def encode(self, images: Tensor) -> Tensor:
        """What renders to given images, as nearly as this parameterisation can.

        Exact for ``Pixels``, and for ``Fourier`` where its spectrum is not zero, but for colours below 0.02
        and above 0.98, which are cut off; ``Maco`` has its own magnitudes and keeps the images' phases.

        Parameters
        ----------
        images
            (R, C, H, W) in [0, 1] or uint8; with alpha (R, C + 1, H, W), or (R, C, H, W) for opaque ones.

        Raises
        ------
        DataError
            If the images have another size or other channels.
        """
        if self.alpha and images.ndim == 4 and images.shape[1] == self.channels:
            opaque = 255 if images.dtype == torch.uint8 else 1
            images = torch.cat([images, torch.full_like(images[:, :1], opaque)], 1)
        expected = (self.channels + self.alpha, *self.size)
        if images.shape[1:] != expected:
            raise DataError(
                f"images of shape {tuple(images.shape)} cannot start a picture of {expected}: resize them to "
                f"{self.size[0]} x {self.size[1]} pixels with {self.channels} channels"
            )
        tables = self._at(images.device, torch.float32)
        difference = (to_logits(images).float() - tables.mean).flatten(2)
        planes = torch.matmul(torch.linalg.inv(tables.colours), difference).view(images.shape)
        return self._encode(planes)

    def resized(self, size: tuple[int, int]) -> Self:
        """The same for pictures of another size."""
        return type(self)(self.prior.resized(size), self.contrast, self.alpha)

    def held(self, drawn: Tensor, most: float) -> Tensor:
        """Rows whose decorrelated colours have a root mean square above `most`, scaled back to it.

        The prior's pictures have 1. Opacity is left as it is, and so is ``Maco``, whose contrast is fixed.
        """
        contrast = self.strength(drawn)
        if contrast is None:
            return drawn
        scale = (most / contrast.clamp_min(1e-12)).clamp_max(1)
        scale = scale.view(-1, *[1] * (drawn.dim() - 1))
        if not self.alpha:
            return drawn * scale
        return torch.cat([drawn[:, : self.channels] * scale, drawn[:, self.channels :]], 1)

    @abc.abstractmethod
    def grown(self, drawn: Tensor, size: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
        """What `resized(size)` renders to the same pictures, finer (or coarser).

        Parameters
        ----------
        drawn
            (R, …) of this parameterisation.
        size
            Height and width to come.
        generator
            For what the smaller picture does not say and must be drawn (``Maco``: phases); without one,
            the same is drawn for all rows and each time. Rows draw in their order.

        Returns
        -------
        Tensor
            (R, …) of `resized(size)`.
        """

    @abc.abstractmethod
    def strength(self, drawn: Tensor) -> Tensor | None:
        """Root mean square (R,) of the decorrelated colours of what was drawn; None where it is fixed."""

    @abc.abstractmethod
    def _encode(self, planes: Tensor) -> Tensor:
        """What renders to decorrelated planes (R, C, H, W) around the mean."""

    def _used(self) -> Prior:
        """The prior that pictures are rendered with."""
        return self.prior

    def _magnitude(self) -> float:
        """What multiplies the prior's magnitudes as long as a picture climbs."""
        return 1.0

    def _at(self, device: torch.device, dtype: torch.dtype) -> _Tables:
        if (device, dtype) not in self._tables:
            prior = self._used()
            if self.alpha:
                opacity = natural_prior(self.size, 1).to(prior.mean.device)
                prior = Prior(
                    torch.cat([prior.mean, opacity.mean]),
                    torch.block_diag(prior.colours, torch.ones_like(prior.colours[:1, :1])),
                    torch.cat([prior.spectrum, _OPACITY * opacity.spectrum]),
                )
            prior = prior.to(device, dtype)
            # Contiguous: a matrix product would copy an expanded mean at each step.
            mean, fold = prior.mean.contiguous(), mirrored(self.size[1], device, dtype)
            spectrum = self._magnitude() * prior.spectrum
            self._tables[device, dtype] = _Tables(mean, prior.colours, spectrum, fold)
        return self._tables[device, dtype]


def _coloured(planes: Tensor, tables: _Tables) -> Tensor:
    """Logits of RGB (R, C, H, W) of decorrelated planes."""
    rows = len(planes)
    mean, colours = tables.mean.flatten(1).expand(rows, -1, -1), tables.colours.expand(rows, -1, -1)
    return torch.baddbmm(mean, colours, planes.flatten(2)).view(planes.shape)


class _Spectral(torch.autograd.Function):
    """Images of phases (R, C, H, W // 2 + 1) or coefficients (…, 2), in half of autograd's time.

    Keeps one spectrum and the images, where autograd would keep every step between them, and takes sine and
    cosine vectorised, which `torch.polar` does not.
    """

    @staticmethod
    def forward(ctx: Any, drawn: Tensor, magnitudes: Tensor, tables: _Tables, phases: bool) -> Tensor:
        # A model under autocast leaves the picture's own precision alone.
        with torch.autocast(drawn.device.type, enabled=False):
            if phases:
                waves = torch.complex(drawn.cos(), drawn.sin()).mul_(magnitudes)
            else:
                waves = torch.view_as_complex(drawn.contiguous()) * magnitudes
            planes = torch.fft.irfft2(waves, s=tables.size, norm="ortho")
            images = _coloured(planes, tables).sigmoid_()
        ctx.tables, ctx.phases = tables, phases
        ctx.save_for_backward(images, waves if phases else magnitudes)
        return images

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, None, None]:
        images, kept = ctx.saved_tensors
        tables: _Tables = ctx.tables
        with torch.autocast(images.device.type, enabled=False):
            logits = torch.ops.aten.sigmoid_backward(gradient.contiguous(), images)
            planes = torch.matmul(tables.colours.T, logits.flatten(2)).view(images.shape)
            waves = torch.fft.rfft2(planes, norm="ortho")
            # Inner columns speak for their mirror too.
            if ctx.phases:
                return (kept.conj() * waves).imag * tables.fold, None, None, None
            return torch.view_as_real(waves.mul_(kept * tables.fold)), None, None, None


class Pixels(Parameterisation):
    """Decorrelated colours of each pixel, in standard deviations: drawn (R, C, H, W)."""

    travel, stride = 6.4, 0.2

    def __init__(self, prior: Prior, contrast: float = 0.05, alpha: bool = False) -> None:
        super().__init__(prior, contrast, alpha)

    def draw(self, generator: torch.Generator, count: int = 1) -> Tensor:
        """White noise."""
        shape = (count, self.channels + self.alpha, *self.size)
        return self.contrast * torch.randn(shape, generator=generator, device=generator.device)

    def render(self, drawn: Tensor) -> Tensor:
        with torch.autocast(drawn.device.type, enabled=False):
            return torch.sigmoid(_coloured(drawn, self._at(drawn.device, drawn.dtype)))

    def grown(self, drawn: Tensor, size: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
        if size == self.size:
            return drawn
        return F.interpolate(drawn, size=size, mode="bilinear", antialias=True)

    def strength(self, drawn: Tensor) -> Tensor:
        return drawn[:, : self.channels].square().mean((1, 2, 3)).sqrt()

    def _encode(self, planes: Tensor) -> Tensor:
        return planes


class Fourier(Parameterisation):
    """Coefficients in parts of the prior's magnitudes over all angles: drawn (R, C, H, W // 2 + 1, 2)."""

    travel, stride = 24.0, 0.5

    def __init__(self, prior: Prior, contrast: float = 0.05, alpha: bool = False) -> None:
        super().__init__(prior, contrast, alpha)

    def draw(self, generator: torch.Generator, count: int = 1) -> Tensor:
        """Noise with the prior's spectrum, faint."""
        shape = (count, self.channels + self.alpha, self.size[0], self.size[1] // 2 + 1, 2)
        return self.contrast * torch.randn(shape, generator=generator, device=generator.device)

    def render(self, drawn: Tensor) -> Tensor:
        tables = self._at(drawn.device, drawn.dtype)
        images: Tensor = _Spectral.apply(drawn, tables.spectrum, tables, False)
        return images

    def grown(self, drawn: Tensor, size: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
        if size == self.size:
            return drawn
        here, there = self._at(drawn.device, drawn.dtype), self.resized(size)._at(drawn.device, drawn.dtype)
        waves = torch.view_as_complex(drawn.contiguous()) * here.spectrum
        scale = (size[0] * size[1] / (self.size[0] * self.size[1])) ** 0.5
        grown = waves.new_zeros(len(drawn), *there.spectrum.shape)
        for old, new in _shared(self.size, size):
            grown[..., *new] = scale * waves[..., *old]
        grown *= torch.polar(torch.ones_like(there.spectrum[0]), _half_pixels(self.size, there))
        return torch.view_as_real(grown / _nonzero(there.spectrum))

    def _used(self) -> Prior:
        return isotropic(self.prior)

    def strength(self, drawn: Tensor) -> Tensor:
        tables = self._at(drawn.device, drawn.dtype)
        colours = drawn[:, : self.channels]
        # Parseval: inner columns stand for their mirror too.
        weights = (tables.spectrum * tables.fold.sqrt())[: self.channels, ..., None]
        power = torch.linalg.vector_norm(colours * weights, dim=(1, 2, 3, 4)).square()
        # The outer columns are their own mirror, and what is odd in them is not seen.
        outer = [0, -1] if self.size[1] % 2 == 0 else [0]
        waves = torch.view_as_complex((colours[:, :, :, outer] * weights[:, :, outer]).contiguous())
        odd = (waves - waves.flip(2).roll(1, 2).conj()) / 2
        power = power - odd.abs().square().sum((1, 2, 3))
        contrast: Tensor = (power / (self.channels * self.size[0] * self.size[1])).sqrt()
        return contrast

    def _encode(self, planes: Tensor) -> Tensor:
        spectrum = self._at(planes.device, planes.dtype).spectrum
        return torch.view_as_real(torch.fft.rfft2(planes, norm="ortho") / _nonzero(spectrum))


class Maco(Parameterisation):
    """Phases in radians; magnitudes are `contrast` times the prior's: drawn (R, C, H, W // 2 + 1)."""

    travel, stride = 24.0, 0.3

    def __init__(self, prior: Prior, contrast: float = 0.7, alpha: bool = False) -> None:
        super().__init__(prior, contrast, alpha)

    def draw(self, generator: torch.Generator, count: int = 1) -> Tensor:
        """Phases, all equally likely."""
        shape = (count, self.channels + self.alpha, self.size[0], self.size[1] // 2 + 1)
        return 2 * torch.pi * torch.rand(shape, generator=generator, device=generator.device)

    def render(self, drawn: Tensor) -> Tensor:
        tables = self._at(drawn.device, drawn.dtype)
        images: Tensor = _Spectral.apply(drawn, tables.spectrum, tables, True)
        return images

    def grown(self, drawn: Tensor, size: tuple[int, int], generator: torch.Generator | None = None) -> Tensor:
        if size == self.size:
            return drawn
        bigger = self.resized(size)
        if generator is None:
            start = bigger.draw(torch.Generator().manual_seed(0)).expand(len(drawn), -1, -1, -1)
        else:
            start = bigger.draw(generator, len(drawn))
        grown = start.to(drawn.device, drawn.dtype, copy=True)
        turned = _half_pixels(self.size, bigger._at(drawn.device, drawn.dtype))
        for old, new in _shared(self.size, size):
            grown[..., *new] = drawn[..., *old] + turned[new]
        return grown

    def strength(self, drawn: Tensor) -> None:
        return None

    def _magnitude(self) -> float:
        return self.contrast

    def _encode(self, planes: Tensor) -> Tensor:
        waves = torch.fft.rfft2(planes, norm="ortho")
        phases = waves.angle()
        # A real picture's first column, and its last of an even width, is its own mirror, and two phases are
        # averaged there: turned apart, they also have the magnitude of the images, where it is smaller.
        tables = self._at(planes.device, planes.dtype)
        apart = torch.acos((waves.abs() / _nonzero(tables.spectrum)).clamp_max(1))
        drawn: Tensor = phases + torch.where(tables.fold == 1, apart, 0)
        return drawn


def _nonzero(spectrum: Tensor) -> Tensor:
    return spectrum.clamp_min(1e-6 * float(spectrum.max()) + 1e-12)


def _shared(
    size: tuple[int, int], other: tuple[int, int]
) -> list[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Rows and columns of two half spectra that are the same frequency, in cycles over the picture.

    The highest of an even side is left out, which stands for two of a larger picture.
    """
    most = [n // 2 if n == m else min((n - 1) // 2, (m - 1) // 2) for n, m in zip(size, other, strict=True)]
    columns = slice(0, most[1] + 1)
    low = slice(0, most[0] + 1)
    pairs = [((low, columns), (low, columns))]
    negative = min(size[0] - 1 - most[0], most[0])
    if negative:
        old, new = slice(size[0] - negative, size[0]), slice(other[0] - negative, other[0])
        pairs.append(((old, columns), (new, columns)))
    return pairs


def _half_pixels(size: tuple[int, int], there: Prior) -> Tensor:
    """Turn of the phase (H, W // 2 + 1) of each frequency that keeps pictures in place at another size.

    Pixels are where their centres are, half a pixel from the edge, and a coefficient is relative to the
    first of them.
    """
    device, dtype = there.spectrum.device, there.spectrum.dtype
    down = torch.fft.fftfreq(there.size[0], 1 / there.size[0], device=device, dtype=dtype)
    across = torch.fft.rfftfreq(there.size[1], 1 / there.size[1], device=device, dtype=dtype)
    turns = [torch.pi * (1 / new - 1 / old) for old, new in zip(size, there.size, strict=True)]
    turned: Tensor = turns[0] * down[:, None] + turns[1] * across
    return turned


def composite(images: Tensor, background: Tensor) -> Tensor:
    """Images (R, C + 1, H, W), the last plane their opacity, before backgrounds (R or 1, C, H, W)."""
    opacity = images[:, -1:]
    return torch.lerp(background, images[:, :-1], opacity)


def backgrounds(prior: Prior, generator: torch.Generator, count: int = 1) -> Tensor:
    """Noise (count, C, H, W) in [0, 1] that looks like the prior's pictures, on the prior's device."""
    noise = Maco(prior, contrast=1.0)
    return noise.render(noise.draw(generator, count).to(prior.mean.device))
