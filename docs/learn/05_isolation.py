# %% [markdown]
# # Isolation, and what faithfulness means
#
# *Which part of this picture made the network say so?* Any method answers that with a coloured map, and a map
# always looks as if it meant something. So here we take a network of which we know the answer, make a map by
# hand, and then ask the question that matters: how would we know that a map is right if we did not know?
#
# The network looks at a signal lamp. Whether it says *stop* or *go* depends on a small square of the picture
# and on nothing else.

# %%
import torch
import torch.nn.functional as F
from PIL import Image

from candling.vision.faithfulness import (
    centre_gaussian,
    curves,
    over_controls,
    random_maps,
    rise_in_complexity,
)
from candling.vision.isolation import Hierarchical, Windows, isolate
from candling.vision.parameterisations import Fourier
from candling.vision.priors import natural_prior

SIDE = 48
GO, STOP = 0, 1
random = torch.Generator().manual_seed(0)

natural = Fourier(natural_prior((SIDE, SIDE), channels=1), contrast=0.5)
photographs = natural.render(natural.draw(random, 12))
photographs = photographs.repeat(1, 3, 1, 1)
LAMP = (slice(6, 14), slice(30, 38))
lamp = torch.zeros(SIDE, SIDE, dtype=torch.bool)
lamp[LAMP] = True
pictures = photographs.clone()
pictures[:, 0][:, *LAMP] = 0.9  # red
pictures[:, 1:][:, :, *LAMP] = 0.15


class Signal(torch.nn.Module):
    """Logits (R, 2): stop where the lamp is redder than it is green."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.zeros(3, SIDE, SIDE)
        weight[0, *LAMP], weight[1, *LAMP] = 1 / 64, -1 / 64
        self.weight = torch.nn.Parameter(weight)

    def forward(self, images):
        redness = (images * self.weight).sum((1, 2, 3))
        return torch.stack([-8 * redness + 2, 8 * redness - 2], 1)


model = Signal()
print("says stop:", int((model(pictures).argmax(1) == STOP).sum()), "of", len(pictures))
print("without the lamp:", int((model(photographs).argmax(1) == STOP).sum()), "of", len(pictures))


# %% Three pictures, and three without their lamp
def sheet(rows):
    """Pictures (3, H, W) in [0, 1] in rows, three times as large."""
    lines = [torch.cat([F.pad(one, (1, 1, 1, 1), value=1.0) for one in row], 2) for row in rows]
    page = (255 * torch.cat(lines, 1)).round().to(torch.uint8).permute(1, 2, 0).numpy()
    image = Image.fromarray(page)
    return image.resize((3 * image.width, 3 * image.height), Image.Resampling.NEAREST)


sheet([pictures[:3], photographs[:3]])

# %% [markdown]
# ## By hand: hide a window, and see what is lost
#
# Cover a square of the picture, ask the network again, and write down by how much it is less sure. Slide the
# square over the picture. "Less sure" is counted in *log-odds*, log p / (1 - p): a probability that falls
# from 0.9999 to 0.99 hardly moves, and its log-odds lose half of what they were.

# %%
picture = pictures[:1]


def log_odds(some):
    answers = model(some).detach()
    return answers[:, STOP] - answers[:, GO]


def hidden(fill):
    """What is lost where a window of 8 pixels is replaced by `fill` (1, 3, H, W)."""
    lost, seen = torch.zeros(SIDE, SIDE), torch.zeros(SIDE, SIDE)
    for top in range(0, SIDE - 7, 4):
        for left in range(0, SIDE - 7, 4):
            window = (slice(top, top + 8), slice(left, left + 8))
            covered = picture.clone()
            covered[:, :, *window] = fill[:, :, *window]
            lost[window] += (log_odds(picture) - log_odds(covered)).item()
            seen[window] += 1
    return lost / seen


blurred = F.avg_pool2d(F.pad(picture, (6, 6, 6, 6), mode="reflect"), 13, 1)
by_blur, by_white = hidden(blurred), hidden(torch.ones_like(picture))
for what, one in {"a blur": by_blur, "white": by_white}.items():
    share = one.clamp_min(0)[lamp].sum() / one.clamp_min(0).sum()
    print(f"hidden by {what}: {100 * share:.0f} % of the evidence lies on the lamp")
print(f"which is {100 * lamp.float().mean():.0f} % of the picture")


# %% The picture, and the evidence for stop, as it comes out for both covers
def shown(one):
    return (one.clamp_min(0) / one.max()).expand(3, -1, -1)


sheet([[picture[0], shown(by_blur), shown(by_white)]])

# %% [markdown]
# Both find the lamp, with a rim where windows overlap it in part. Mind the cover, though. White took the lamp
# away *and* put a bright thing there. On a smooth sky a blur changes nothing at all, and a network that reads
# the sky would look as if it did not. There is no cover that is right for everything, which is why it is
# written down with each map, and why clean backgrounds are used where there are some.
#
# ## From coarse to fine
#
# Most windows are a waste: there is nothing there. Start with large ones, look closer only where something
# was lost, and share what a large window held out among the small ones within it. Also show each window
# *alone*, not only hide it; what is enough and what is needed are two things.
#
# Windows cannot see single pixels, but slopes can: how much would the answer rise if this pixel moved a
# little towards what it is, while some random part of the picture is covered? One pass forward and one back
# answers that for all pixels at once. Slopes are crumbs, though, and some networks need the whole loaf; so
# the map is made coarse and fine, and the one is kept that passes best the test of the next section. Windows
# say how much evidence there is, slopes where in a window it lies. All that together is the default of
# `candling.isolate` (after hierarchical perturbation, [arXiv 2103.05108](https://arxiv.org/abs/2103.05108),
# with the masks of [arXiv 1806.07421](https://arxiv.org/abs/1806.07421)).

# %%
classes = torch.full((len(pictures), 1), STOP)
for method in (Windows(side=8, stride=4), Hierarchical()):
    found = isolate(model, pictures, classes=classes, method=method)
    on = found.maps[:, 0].clamp_min(0)
    share = (on * lamp).sum((1, 2)) / on.sum((1, 2))
    print(f"{type(method).__name__}: {100 * share.mean():.0f} % on the lamp")
maps = found.maps[:, 0]
assert share.mean() > 0.5

# %% Three pictures and their maps
sheet([pictures[:3], [shown(one) for one in maps[:3]]])

# %% [markdown]
# ## How would we know?
#
# Here we know where the lamp is. With a real network nobody does, and a map that shows what *we* would look
# at convinces us for the wrong reason. A map makes a claim, and the claim can be tried: **if these pixels
# matter most, then a picture that has only them should be enough, and a picture without them should not.**
#
# *Insertion*: start from the blur and put pixels back, those first that the map calls important. *Deletion*:
# start from the picture and take them away in the same order. The probability of *stop* on the way makes two
# curves, and the area between them says how faithful the map is: 1 at the most, 0 for a map that knows
# nothing, below 0 for one that is wrong.

# %%
random_map = random_maps(pictures, draws=1)[:, 0]
guesses = {"the map": maps, "a random map": random_map, "the centre": centre_gaussian(pictures)}
for what, one in guesses.items():
    drawn = curves(model, pictures, one, classes[:, 0], steps=24)
    gap = (drawn.insertion_auc - drawn.deletion_auc).mean()
    print(f"{what}: {gap:+.2f}")

# %% [markdown]
# The centre is the guess that a map has to beat: photographers put things there. Each comparison is made on
# the same pictures, so that the difference has an interval.

# %%
beaten = over_controls(model, pictures, maps, classes[:, 0], steps=24)
print("more faithful than random maps:", beaten.over_random.low > 0)
print("more faithful than the centre:", beaten.over_centre.low > 0)
assert beaten.over_random.low > 0
assert beaten.over_centre.low > 0

# %% [markdown]
# ## And does it look at the network at all?
#
# There are methods whose maps hardly change when all weights of the network are replaced by noise: they draw
# the edges of the picture, whatever the network has learned (Adebayo et al. 2018). So randomise the network
# and look again. Evidence of a network that knows nothing is everywhere, and its map is more *complex*: its
# values have more entropy ([arXiv 2401.06465](https://arxiv.org/abs/2401.06465)).

# %%
risen = rise_in_complexity(model, lambda one: isolate(one, pictures, classes=classes).maps[:, 0])


def edges(one):
    """A 'map' that never asks the network."""
    grey = pictures.mean(1)
    return F.pad((grey[:, 1:, 1:] - grey[:, :-1, :-1]).abs(), (0, 1, 0, 1))


print("maps of the network rise in complexity:", bool((risen.rise > 0).all()))
print("edges rise in complexity:", bool((rise_in_complexity(model, edges).rise > 0).any()))
assert (risen.rise > 0).all()

# %% [markdown]
# In an audit these are `isolation.insertion_minus_deletion`, `isolation.over_random`, `isolation.over_centre`
# and `isolation.complexity_rise`, beside `isolation.stability` and, where there are masks, the share of the
# evidence on the object next to its chance. A faithful map still only says *where*. Whether that is a reason
# to worry is a question for an experiment: [the tank case](07_the_tank_case.md).
