# %% [markdown]
# # The gradient of the input
#
# [Learning](01_gradients.md) asks how the *weights* should change, the house being what it is. Now the
# weights are learned and stay, and we ask how the *house* should change: what would raise the estimated
# price most? It is the same walk back, only one step further, to the input. It shows what the network has
# learned.
#
# First we need houses to learn from. We make them up, so that we know the truth: larger houses have more
# rooms, each 10 m² are worth 24 000, and each room *costs* 25 000, since walls take space.

# %%
import io

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

random = np.random.default_rng(0)
area = random.uniform(0.5, 2.0, 300)  # in 100 m²
rooms = (3 * area + random.normal(0, 0.8, 300)).round().clip(1, 8)
price = 2.4 * area - 0.25 * rooms + random.normal(0, 0.1, 300)  # in 100 000

houses = torch.tensor(np.stack([area, rooms], 1))
prices = torch.tensor(price)
mean, spread = houses.mean(0), houses.std(0)
print(f"a typical house: {100 * mean[0]:.0f} m², {mean[1]:.0f} rooms")
print(f"a typical difference between houses: {100 * spread[0]:.0f} m², {spread[1]:.0f} rooms")

# %% [markdown]
# The network is that of the last page. It sees areas and rooms in typical differences from the typical
# house, so that both are numbers of the same size. It learns by the step of the last page, 3000 times.

# %%
torch.manual_seed(0)
network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Tanh(), torch.nn.Linear(2, 1)).double()


def estimate(some):
    return network((some - mean) / spread)[:, 0]


for _ in range(3000):
    loss = (estimate(houses) - prices).square().mean()
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    with torch.no_grad():
        for parameter, gradient in zip(network.parameters(), gradients, strict=True):
            parameter -= 0.1 * gradient
print(f"a typical error: {100 * loss.sqrt():.0f} 000, where prices vary by {100 * prices.std():.0f} 000")

# %% [markdown]
# ## Which change raises the price most?
#
# Ask for the gradient by the house instead of by the weights. That is all.

# %%
house = torch.tensor([[1.2, 4.0]], dtype=torch.float64, requires_grad=True)
(slope,) = torch.autograd.grad(estimate(house).sum(), house)
per_area, per_room = slope[0].tolist()
print(f"10 m² more: {10 * per_area:+.0f} 000")
print(f"a room more: {100 * per_room:+.0f} 000")
assert per_area > 0 > per_room

# %% [markdown]
# The network has found what we put in: area is worth money, a room is not. We did not look at one weight,
# and it would work the same with a million of them.
#
# Which of the two changes is "most"? That depends on the units: had we counted area in m² instead of 100
# m², its slope would be a hundredth. A fair unit is the typical difference between houses, by which we
# multiply.

# %%
fair = slope[0] * spread
print(f"a typical difference in area: {100 * fair[0]:+.0f} 000")
print(f"a typical difference in rooms: {100 * fair[1]:+.0f} 000")

# %% [markdown]
# ## Climbing
#
# So why not build the house that the network likes best? Take a step up, ask again, and so on. Each step
# here is a twentieth of a typical difference long.


# %%
def climb(start, aim, steps=200):
    path = [start.detach()]
    for _ in range(steps):
        here = path[-1].clone().requires_grad_()
        (slope,) = torch.autograd.grad(aim(here).sum(), here)
        uphill = slope * spread  # in fair units
        path.append(path[-1] + 0.05 * spread * uphill / uphill.norm())
    return torch.cat(path)


def show(name, end):
    value = 100 * estimate(end[None])[0]
    print(f"{name}: {100 * end[0]:.0f} m², {end[1]:.0f} rooms, estimated at {value:.0f} 000")


free = climb(house, estimate)
show("begin", free[0])
show("end", free[-1])
assert free[-1][1] < 0

# %% [markdown]
# A house with fewer rooms than none. The network has never seen one, and nothing tells it that there are no
# such houses: where it has seen no data, its estimate is whatever its formula happens to give. The climb
# asked for a high *estimate*, and got it; it never asked for a *house*.
#
# With pictures it is worse. A picture has thousands of pixels, and so thousands of ways out of the data.
# What comes out is noise that the network answers strongly: an adversarial picture.
#
# ## A prior keeps us among houses
#
# So ask for both: a high estimate, and a house such as there are. The simplest description of the houses
# there are is a bell curve around the typical one, that knows that larger houses have more rooms. It is
# called a **prior**, as it is what we know before we ask the network. What is subtracted for unlikely
# houses is called a **regulariser**.

# %%
precision = torch.linalg.inv(torch.cov(houses.T))


def unlikely(some):
    """Squared distance from the typical house, in typical differences in each direction."""
    away = some - mean
    return ((away @ precision) * away).sum(1)


kept = climb(house, lambda some: estimate(some) - 0.2 * unlikely(some))
show("free", free[-1])
show("with a prior", kept[-1])
print("How far from the typical house, in typical differences?")
for name, some in {"most unlikely house": houses, "free": free[-1:], "with a prior": kept[-1:]}.items():
    print(f"{name}: {unlikely(some).max().sqrt():.1f}")
assert unlikely(kept[-1:])[0] < unlikely(houses).max() < unlikely(free[-1:])[0]

# %% The estimate by area and rooms. The free climb leaves the houses for negative rooms; the other stays.
across, down = np.meshgrid(np.linspace(0, 6, 61), np.linspace(-3, 9, 61))
with torch.no_grad():
    level = estimate(torch.tensor(np.stack([across.ravel(), down.ravel()], 1))).reshape(61, 61)
figure = Figure(figsize=(6, 4), dpi=100, layout="constrained")
axes = figure.subplots()
filled = axes.contourf(100 * across, down, level, 12, cmap="Greys_r", alpha=0.6)
figure.colorbar(filled, label="estimate in 100 000")
axes.scatter(100 * area, rooms, s=4, color="tab:blue", label="houses")
axes.plot(100 * free[:, 0], free[:, 1], color="tab:red", linewidth=2, label="free climb")
axes.plot(100 * kept[:, 0], kept[:, 1], color="tab:green", linewidth=2, label="with a prior")
axes.axhline(0, color="black", linewidth=0.5)
axes.set(xlabel="area in m²", ylabel="rooms")
axes.legend(loc="upper right")
file = io.BytesIO()
figure.savefig(file)
Image.open(file)

# %% [markdown]
# It has many rooms, although rooms lower the estimate, since houses as large as this one have them. The
# house with a prior is the network's idea of an expensive house that might exist: a **prototype**. Next,
# the same is done with pictures: [from noise to a prototype](03_noise_to_prototype.md).
