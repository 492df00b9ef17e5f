# %% [markdown]
# # Gradients
#
# A network learns by asking one question of each of its numbers: *if this number were a little larger,
# would the error grow or shrink, and how fast?* The answer is a slope, called a derivative. All slopes
# together are the **gradient**. This page takes the gradient of a very small network in three ways, which
# agree.
#
# The network estimates the price of a house from two features. It has two layers:
#
# | | | |
# |---|---|---|
# | input | $x_1, x_2$ | area in 100 m², number of rooms |
# | sums | $s_i = w_{i1} x_1 + w_{i2} x_2 + b_i$ | for the two hidden units, $i = 1, 2$ |
# | hidden | $h_i = \tanh(s_i)$ | the bend: without it two layers would be no more than one |
# | price | $p = v_1 h_1 + v_2 h_2 + c$ | in 100 000 |
# | error | $E = (p - t)^2$ | how wrong the price is, $t$ being the true one |
#
# Nine numbers can be learned: four $w$, two $b$, two $v$ and $c$.

# %%
import numpy as np
import torch

x = np.array([1.2, 4.0])  # a house of 120 m² with 4 rooms
t = 3.5  # that was sold for 350 000

weights = {
    "w": np.array([[0.5, -0.2], [-0.3, 0.1]]),
    "b": np.array([0.1, 0.2]),
    "v": np.array([0.7, -0.4]),
    "c": np.array(1.0),
}


def error(w, b, v, c):
    h = np.tanh(w @ x + b)
    return (v @ h + c - t) ** 2


print(f"error before learning: {error(**weights):.3f}")

# %% [markdown]
# ## What a slope is
#
# Make one number a little larger, and look at what the error does. For $c$, which is added to the price:

# %%
little = 1e-6
nudged = weights | {"c": weights["c"] + little}
slope = (error(**nudged) - error(**weights)) / little
print(f"slope of the error by c: {slope:.3f}")

# %% [markdown]
# The slope is negative: a larger $c$ makes the error smaller. That is right, since the price is too low.
#
# We could nudge all nine numbers, one after the other. A real network has millions, and each nudge would
# cost a run of the network. Algebra gives all slopes for the price of about two runs.
#
# ## By hand
#
# Write the error out as one formula, and differentiate it by each number. Two rules are enough: the slope
# of $u^2$ is $2u$, and the slope of $\tanh(s)$ is $1 - \tanh(s)^2$.
#
# $$\frac{\partial E}{\partial c} = 2(p - t) \qquad \frac{\partial E}{\partial v_i} = 2(p - t)\ h_i$$
#
# $$\frac{\partial E}{\partial b_i} = 2(p - t)\ v_i\ (1 - h_i^2) \qquad
# \frac{\partial E}{\partial w_{ij}} = 2(p - t)\ v_i\ (1 - h_i^2)\ x_j$$

# %%
w, b, v, c = weights.values()
h1 = np.tanh(w[0, 0] * x[0] + w[0, 1] * x[1] + b[0])
h2 = np.tanh(w[1, 0] * x[0] + w[1, 1] * x[1] + b[1])
miss = v[0] * h1 + v[1] * h2 + c - t
by_hand = {
    "w": np.array(
        [
            [2 * miss * v[0] * (1 - h1**2) * x[0], 2 * miss * v[0] * (1 - h1**2) * x[1]],
            [2 * miss * v[1] * (1 - h2**2) * x[0], 2 * miss * v[1] * (1 - h2**2) * x[1]],
        ]
    ),
    "b": np.array([2 * miss * v[0] * (1 - h1**2), 2 * miss * v[1] * (1 - h2**2)]),
    "v": np.array([2 * miss * h1, 2 * miss * h2]),
    "c": np.array(2 * miss),
}
for name, gradient in by_hand.items():
    print(name, gradient.round(3).tolist())

# %% [markdown]
# ## By the chain rule
#
# The formulas share their beginnings: $2(p - t)$ is in all of them. The **chain rule** says why: a slope
# through several steps is the product of the slopes of the steps. So begin at the error and walk back, step
# by step, and keep what each step has found. This is called backpropagation. No formula gets longer,
# however many layers there are.

# %%
s = w @ x + b  # forward, each step kept
h = np.tanh(s)
p = v @ h + c

error_by_p = 2 * (p - t)  # backward: what does the error do if this step's result grows?
error_by_h = error_by_p * v
error_by_s = error_by_h * (1 - h**2)
by_chain = {
    "w": np.outer(error_by_s, x),
    "b": error_by_s,
    "v": error_by_p * h,
    "c": error_by_p,
}

# %% [markdown]
# ## By autograd
#
# PyTorch does this walk for us. It writes down each step on the way forward, and `backward()` walks back.

# %%
tensors = {name: torch.tensor(value, requires_grad=True) for name, value in weights.items()}
hidden = torch.tanh(tensors["w"] @ torch.tensor(x) + tensors["b"])
loss = (tensors["v"] @ hidden + tensors["c"] - t) ** 2
loss.backward()
by_autograd = {name: tensor.grad.numpy() for name, tensor in tensors.items()}

for name in weights:
    assert np.allclose(by_hand[name], by_chain[name], rtol=0, atol=1e-6)
    assert np.allclose(by_hand[name], by_autograd[name], rtol=0, atol=1e-6)
print("three ways, one gradient")

# %% [markdown]
# ## One step down
#
# The gradient points to where the error grows fastest. So move all numbers a little the other way. The
# length of the step, the *learning rate*, is ours to choose: too short takes for ever, too long jumps
# across the valley.

# %%
rate = 0.05
stepped = {name: value - rate * by_autograd[name] for name, value in weights.items()}
assert error(**stepped) < error(**weights)
print(f"error: {error(**weights):.3f} before the step, {error(**stepped):.3f} after it")

# %% [markdown]
# To learn is to repeat this step, with many houses. Next, the same gradient is taken for something else
# than the weights: [the gradient of the input](02_input_gradient.md).
