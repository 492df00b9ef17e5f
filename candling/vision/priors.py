"""What pictures look like before anything is known of them: their mean, colours and spectrum."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from candling.errors import DataError, ParamsError

__all__ = ["Prior", "fit_prior", "isotropic", "natural_prior", "steeper"]

# Where logits of RGB end: 8-bit black and white have none.
_DARKEST, _BRIGHTEST = 0.02, 0.98

# Square root of the covariance of RGB over ImageNet's pixels, by singular value decomposition: columns are
# grey, blue to red and green to magenta. Published with Olah et al., "Feature Visualization", Distill 2017
# (`color_correlation_svd_sqrt` in its library Lucid).
_IMAGENET_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))

# Slope of the logit at mid grey: a small step of RGB is four times as long in logits.
_LOGITS_PER_RGB = 4.0


@dataclass(frozen=True, eq=False)
class Prior:
    """What pictures of a data set look like before anything is known: a Gaussian in the Fourier domain.

    mean: (C, H, W) logits of RGB. colours: (C, C) from decorrelated colours to logits of RGB.
    spectrum: (C, H, W // 2 + 1) root-mean-square magnitude of each frequency of each decorrelated colour,
    as `torch.fft.rfft2(planes, norm="ortho")` has them.
    """

    mean: Tensor
    colours: Tensor
    spectrum: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.mean.shape[1], self.mean.shape[2]

    @property
    def channels(self) -> int:
        """Channels of the pictures."""
        return self.mean.shape[0]

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> Prior:
        """The same elsewhere."""
        return Prior(*(t.to(device, dtype) for t in (self.mean, self.colours, self.spectrum)))

    def resized(self, size: tuple[int, int]) -> Prior:
        """The prior of the same pictures at another size.

        What has as many cycles over the picture keeps its magnitude; frequencies that this size does not
        have continue what it has last in their direction, falling as 1/f (Field 1987).

        Parameters
        ----------
        size
            Height and width, each at least 1.

        Raises
        ------
        ParamsError
            If the size is not of a picture.
        """
        _check_size(size)
        if size == self.size:
            return self
        here, there = _cycles(self.size, self.mean.device), _cycles(size, self.mean.device)
        # Highest frequencies that both have; beyond these, the nearest in the same direction.
        most = [max(1, n // 2) for n in self.size]
        beyond = torch.maximum(there[0].abs() / most[0], there[1].abs() / most[1]).clamp_min(1)
        row = (there[0] / beyond).round().long() % self.size[0]
        column = (there[1] / beyond).round().long().clamp_max(self.spectrum.shape[2] - 1)
        flat = self.spectrum * _distance(here, self.size)
        # A wave of as many parts of RGB has coefficients that grow with the root of the number of pixels.
        growth = (size[0] * size[1] / (self.size[0] * self.size[1])) ** 0.5
        spectrum = growth * flat[:, row, column] / _distance(there, self.size)
        mean = F.interpolate(self.mean[None], size=size, mode="bilinear", antialias=True)[0]
        return Prior(mean, self.colours, spectrum)


def _check_size(size: tuple[int, int]) -> None:
    if len(size) != 2 or min(size) < 1:
        raise ParamsError(f"{size} is not a height and a width of a picture: give two whole numbers from 1")


def _cycles(size: tuple[int, int], device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Cycles over the picture's height (H, 1) and width (1, W // 2 + 1) as (H, W // 2 + 1) each."""
    rows = torch.fft.fftfreq(size[0], 1 / size[0], device=device)
    columns = torch.fft.rfftfreq(size[1], 1 / size[1], device=device)
    down, across = torch.meshgrid(rows, columns, indexing="ij")
    return down, across


def _distance(cycles: tuple[Tensor, Tensor], size: tuple[int, int]) -> Tensor:
    """Cycles over the longer side of pictures of this shape, at least 1."""
    longer = max(size)
    down, across = cycles[0] * (longer / size[0]), cycles[1] * (longer / size[1])
    return (down.square() + across.square()).sqrt().clamp_min(1)


def to_logits(images: Tensor) -> Tensor:
    """Logits of images, uint8 or float in [0, 1], black and white cut off at 0.02 and 0.98."""
    values = images.float() / 255 if images.dtype == torch.uint8 else images
    return torch.logit(values.clamp(_DARKEST, _BRIGHTEST))


def fit_prior(images: Tensor, empty: Tensor | None = None) -> Prior:
    """Fit mean, colours and spectrum of a data set.

    Parameters
    ----------
    images
        (N, C, H, W), uint8 or float in [0, 1].
    empty
        The same without objects, where there is such a set: the mean is taken from it, so that no trace
        of an average object is in the prototypes to begin with.

    Raises
    ------
    DataError
        If there are no pictures, or they do not differ.
    """
    if images.ndim != 4 or not images.numel():
        raise DataError(
            f"a prior is fitted on pictures (N, C, H, W), not on a tensor of shape {tuple(images.shape)}"
        )
    if bool((images == images[:1]).all()):
        raise DataError("a prior is fitted on pictures that differ; these are one, or all the same")
    rgb = to_logits(images)
    mean = (rgb if empty is None else to_logits(empty)).mean(0)
    colours = (rgb - mean).permute(1, 0, 2, 3).flatten(1).double()
    values, vectors = torch.linalg.eigh(torch.cov(colours).reshape(len(colours), len(colours)))
    matrix = vectors * values.clamp_min(1e-6).sqrt()
    # eigh leaves the signs of the vectors open; the largest entry of each is made positive.
    matrix = matrix * matrix.gather(0, matrix.abs().argmax(0, keepdim=True)).sign()
    planes = torch.einsum("ij,njhw->nihw", torch.linalg.inv(matrix).float(), rgb - mean)
    power = torch.fft.rfft2(planes, norm="ortho").abs().square().mean(0)
    # A picture and its mirror are equally likely.
    power = (power + torch.cat([power[:, :1], power[:, 1:].flip(1)], 1)) / 2
    # What is left at the highest frequencies is the sensor's noise, at all frequencies alike.
    floor = power.flatten(1).quantile(0.05, dim=1).view(-1, 1, 1)
    return Prior(mean, matrix.float(), (power - floor).clamp_min(0).sqrt())


def natural_prior(size: tuple[int, int], channels: int = 3) -> Prior:
    """The prior of photographs where there are none to fit one on.

    Mid grey on average; magnitudes fall as 1/f (Field, "Relations between the statistics of natural images
    and the response properties of cortical cells", 1987); three channels are coloured like ImageNet's
    pixels, any other number is left uncorrelated. The pixels of each decorrelated colour have variance 1,
    at all sizes, so that pictures drawn from it have a standard deviation in RGB of about 0.2, like
    photographs.

    Parameters
    ----------
    size
        Height and width.
    channels
        Of the pictures.

    Raises
    ------
    ParamsError
        If the size or the number of channels is not of a picture.
    """
    _check_size(size)
    if channels < 1:
        raise ParamsError(f"{channels} is not a number of channels: give a whole number from 1")
    spectrum = 1 / _distance(_cycles(size), size)
    # Inner columns stand for two frequencies each, theirs and its mirror.
    power = (mirrored(size[1]) * spectrum.square()).sum() / (size[0] * size[1])
    imagenet = torch.tensor(_IMAGENET_COLOURS)
    colours = imagenet if channels == 3 else imagenet.norm(dim=1).mean() * torch.eye(channels)
    return Prior(
        torch.zeros(channels, *size),
        _LOGITS_PER_RGB * colours,
        (spectrum / power.sqrt()).repeat(channels, 1, 1),
    )


def mirrored(width: int, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """How many frequencies each column of a half spectrum stands for: 2, but 1 for the first and the last
    of an even width."""
    columns = torch.full((width // 2 + 1,), 2.0, device=device, dtype=dtype)
    columns[0] = 1
    if width % 2 == 0:
        columns[-1] = 1
    return columns


def isotropic(prior: Prior) -> Prior:
    """The prior without places and directions: its mean colour, each frequency's magnitude over all angles.

    Roots of mean squares of rings; the axes of a spectrum hold the edges of pictures, which would be drawn.
    """
    height, width = prior.size
    device = prior.spectrum.device
    rows = torch.fft.fftfreq(height, device=device)[:, None]
    columns = torch.fft.rfftfreq(width, device=device)[None]
    ring = ((rows.square() + columns.square()).sqrt() * max(height, width)).round().long().flatten()
    rings = torch.zeros(prior.channels, int(ring.max()) + 1, device=device)
    power = rings.index_add_(1, ring, prior.spectrum.square().flatten(1))
    ringed = (power / ring.bincount())[:, ring].view_as(prior.spectrum).sqrt()
    return Prior(prior.mean.mean((1, 2), keepdim=True).expand_as(prior.mean), prior.colours, ringed)


def steeper(prior: Prior, by: float) -> Prior:
    """The prior, as strong in all, with magnitudes that fall faster: not as 1/f but as 1/f^(1 + by)."""
    distance = _distance(_cycles(prior.size, prior.spectrum.device), prior.size)
    spectrum = prior.spectrum * distance**-by
    fold = mirrored(prior.size[1], spectrum.device, spectrum.dtype)

    def power(magnitudes: Tensor) -> Tensor:
        return (fold * magnitudes.square()).sum((1, 2), keepdim=True)

    kept = power(prior.spectrum) / power(spectrum).clamp_min(1e-30)
    return replace(prior, spectrum=spectrum * kept.sqrt())
