# %% [markdown]
# # From noise to a prototype
#
# [Climbing the input](02_input_gradient.md) shows what a network looks for, if a prior keeps the climb
# among likely inputs. Here the inputs are pictures, and the parts are those that `candling` itself uses.
#
# To know whether a prototype tells the truth, we need a network whose truth is known. So we build one by
# hand. It says how much a picture looks like **stripes** of one angle: that is the pattern we plant. And it
# has a weakness that trained networks have too: each pixel has some small weight that means nothing, fine
# **specks**.

# %%
import torch
import torch.nn.functional as F
from PIL import Image

from candling.vision.parameterisations import Fourier, Pixels
from candling.vision.priors import natural_prior
from candling.vision.regularisers import total_variation
from candling.vision.transforms import ROBUSTNESS, move, moves

SIDE = 32
random = torch.Generator().manual_seed(0)

place = torch.arange(SIDE).double() - (SIDE - 1) / 2
along = place * torch.cos(torch.deg2rad(torch.tensor(30.0)))
down = place * torch.sin(torch.deg2rad(torch.tensor(30.0)))
stripes = torch.sin(2 * torch.pi * 3 / SIDE * (along + down[:, None]))

specks = torch.randn(1, SIDE, SIDE, generator=random).double()
specks = (specks - F.avg_pool2d(specks, 3, stride=1, padding=1))[0]
weights = stripes + 3 * specks / specks.std()


def network(images):
    """How strongly each picture (R, 1, H, W) is answered."""
    return ((images - 0.5) * weights).sum((1, 2, 3))


# %% [markdown]
# Is it a good network? Try it on made-up photographs, half of them with stripes. `natural_prior` knows what
# most photographs have in common: coarse differences are strong, fine ones are faint (magnitudes fall as
# one over the frequency). `Fourier` draws such pictures.

# %%
prior = natural_prior((SIDE, SIDE), channels=1)
natural = Fourier(prior, contrast=0.7)
photographs = natural.render(natural.draw(random, 1000).double())
striped = torch.sigmoid(torch.logit(photographs) + 0.7 * stripes)

threshold = (network(photographs).mean() + network(striped).mean()) / 2
right = torch.cat([network(photographs) < threshold, network(striped) > threshold])
print(f"right: {100 * right.double().mean():.0f} % of 2000 photographs")


# %% The stripes, the network's weights, a photograph, and the same with stripes
def sheet(pictures):
    """Grey pictures (H, W) in [0, 1], side by side and four times as large."""
    row = torch.cat([F.pad(picture, (1, 1, 1, 1), value=1.0) for picture in pictures], 1)
    image = Image.fromarray((255 * row).round().to(torch.uint8).numpy())
    return image.resize((4 * image.width, 4 * image.height), Image.Resampling.NEAREST)


sheet([stripes / 2 + 0.5, (weights / 12 + 0.5).clamp(0, 1), photographs[0, 0], striped[0, 0]])

# %% [markdown]
# It is: photographs have little that is as fine as the specks, which therefore do no harm, and no test on
# photographs would find them. But they are most of what the network is made of, and a climb finds them.
#
# ## The climb
#
# A *parameterisation* says what is moved (pixels, or waves) and renders it to pictures. The rest is the
# climb of the last page. Four pictures climb at once, from different noise.


# %%
def climb(parameterisation, robustness="none", smooth=0.0, steps=100):
    generator = torch.Generator().manual_seed(1)
    drawn = parameterisation.draw(generator, 4).double().requires_grad_()
    optimizer = torch.optim.Adam([drawn], lr=0.05)
    for _ in range(steps):
        images = parameterisation.render(drawn)
        seen = move(images, moves(generator, 4).double(), ROBUSTNESS[robustness])
        loss = -network(seen) + smooth * total_variation(images)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    return parameterisation.render(drawn).detach()


def likeness(images):
    """Mean correlation with the planted stripes: 1 is the stripes themselves, 0 has nothing of them."""
    planes = images.flatten(1) - images.flatten(1).mean(1, keepdim=True)
    return F.cosine_similarity(planes, (stripes - stripes.mean()).flatten()[None]).mean().item()


def show(name, images):
    print(f"{name}: correlation {likeness(images):.2f}, answer {network(images).mean():.0f}")


show("photographs with stripes", striped)

# %% [markdown]
# ## Pixels alone
#
# Each pixel goes wherever the answer grows.

# %%
pixels = climb(Pixels(prior))
show("pixels", pixels)

# %% [markdown]
# Noise, but the network answers it far more strongly than any photograph. The climb has not failed: it was
# not asked for a picture. It is the house with negative rooms again.
#
# ## Waves of a natural picture
#
# On the last page, steps were fair when taken in typical differences between houses. Pictures have such
# units too: `Fourier` moves waves, each in parts of what a photograph has of it. Coarse waves now move far,
# fine ones little.

# %%
waves = climb(Fourier(prior))
show("waves", waves)

# %% [markdown]
# ## Seen through small movements
#
# A thing remains the same thing if the camera shakes. Specks do not: moved by a pixel, they no longer fit.
# So in each step the network sees the picture turned, scaled and shifted a little at random, and only what
# survives is worth climbing for.

# %%
steady = climb(Fourier(prior), robustness="s")
show("waves, moved", steady)

# %% [markdown]
# ## A regulariser
#
# Last, subtract something for what photographs have less of: `total_variation` counts the differences
# between neighbouring pixels, and is 1 for a photograph.

# %%
smooth = climb(Fourier(prior), robustness="s", smooth=50.0)
show("waves, moved, smooth", smooth)

found = [likeness(images) for images in (pixels, waves, steady, smooth)]
assert found == sorted(found)
assert found[-1] > 3 * found[0]

# %% From left to right: pixels, waves, waves seen moved, the same with a regulariser; the planted stripes
sheet([images[0, 0] for images in (pixels, waves, steady, smooth)] + [stripes / 2 + 0.5])

# %% [markdown]
# The same network, the same climb: what differs is what we said about pictures. Note that the answer is
# *lower* for the prototype than for the noise. A prototype is not what a network answers most strongly, but
# what it looks for among pictures that could be.
#
# `candling.vision.prototypes` does all that for many rows, which are classes and seeds, at once.
