"""What a network returns becomes logits, whatever form it has; log-odds against the plain formula."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from candling.errors import ModelError
from candling.models import Classifier, ModelSpec, log_odds, probabilities
from candling.models.heads import as_logits, detect, output_tensor, probes
from tests.models.factories import AFTER, Tiny

SIZE = (8, 10)


def plain_log_odds(values: Tensor) -> Tensor:
    """Each class against the sum over all others, term by term."""
    others = [
        torch.logsumexp(torch.cat([values[..., :k], values[..., k + 1 :]], -1), -1)
        for k in range(values.shape[-1])
    ]
    return values - torch.stack(others, -1)


def network(outputs: int = 3, after: str = "none", seed: int = 0) -> Tiny:
    torch.manual_seed(seed)
    made = Tiny(outputs, after=after).eval()
    with torch.no_grad():
        made.head.weight.mul_(6)
    return made


@pytest.mark.parametrize(
    "after",
    ["none", "spatial", "tuple", "list", "named tuple", "dict", "dict of scores", "dict without names",
     "dataclass", "dataclass without names", "model output"],
)  # fmt: skip
def test_every_form_of_output_is_the_same_tensor(after: str) -> None:
    scores = torch.randn(4, 3)
    assert torch.equal(output_tensor(AFTER[after](scores)), scores)


@pytest.mark.parametrize(
    ("after", "message"),
    [("argmax", "returns int64, such as indices"), ("nothing", "returns str without a tensor"),
     ("sequence", r"shape \(4, 4, 3\); a classifier's is \(images, classes\)")],
)  # fmt: skip
def test_outputs_that_are_no_scores(after: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        output_tensor(AFTER[after](torch.randn(4, 3)))


# outputs, what is done to them, and what must be found
DETECTED = {
    "logits": (3, "none", "softmax", "logits"),
    "softmax": (3, "softmax", "softmax", "probabilities"),
    "softmax of two": (2, "softmax", "softmax", "probabilities"),
    "log softmax": (3, "log softmax", "softmax", "logits"),
    "softmax in a dict": (3, "dict of probs", "softmax", "probabilities"),
    "one logit": (1, "none", "binary", "logits"),
    "one flat logit": (1, "flat", "binary", "logits"),
    "one probability": (1, "sigmoid", "binary", "probabilities"),
    "one flat probability": (1, "flat sigmoid", "binary", "probabilities"),
    "sigmoids": (3, "sigmoid", "multilabel", "probabilities"),
    "sigmoids of their own make": (3, "own sigmoid", "multilabel", "probabilities"),
    "logits that lie in [0, 1]": (3, "small", "softmax", "logits"),
    "one logit in [0, 1]": (1, "small", "binary", "logits"),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("case", DETECTED)
def test_detection(case: str, seed: int) -> None:
    outputs, after, head, output = DETECTED[case]
    reading = detect(network(outputs, after, seed), probes(SIZE))
    assert (reading.head, reading.output, reading.outputs) == (head, output, outputs)
    assert bool(reading.note) == (output == "probabilities")


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_black_box_that_leaves_it_open_must_be_told(outputs: int) -> None:
    made = network(outputs, "small").requires_grad_(False)
    with pytest.raises(ModelError, match="say output: probabilities or output: logits"):
        detect(made, probes(SIZE), black_box=True)
    assert detect(made, probes(SIZE), black_box=True, output="logits").output == "logits"
    told = detect(made, probes(SIZE), black_box=True, output="probabilities")
    assert told.head == ("binary" if outputs == 1 else "multilabel")


@pytest.mark.parametrize("after", ["sigmoid", "softmax", "none"])
def test_a_black_box_is_seen_through_by_its_answers(after: str) -> None:
    made = network(3, after).requires_grad_(False)
    expected = "logits" if after == "none" else "probabilities"
    assert detect(made, probes(SIZE), black_box=True).output == expected


@pytest.mark.parametrize(
    ("outputs", "after", "said", "message"),
    [
        (3, "none", {"head": "binary"}, "binary is one output, the network has 3"),
        (1, "none", {"head": "softmax"}, "softmax needs two outputs"),
        (3, "none", {"output": "probabilities"}, r"leave \[0, 1\]"),
        (3, "nan", {}, "NaN or infinite"),
        (3, "short", {}, "returns 1 rows for 12 images"),
    ],
)
def test_what_was_said_and_is_not_so(outputs: int, after: str, said: dict[str, str], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        detect(network(outputs, after), probes(SIZE), **said)  # type: ignore[arg-type]


def test_what_is_said_is_kept() -> None:
    assert detect(network(3, "softmax"), probes(SIZE), output="logits").output == "logits"
    assert detect(network(3), probes(SIZE), head="multilabel").head == "multilabel"


def test_logits_of_probabilities_give_them_back() -> None:
    z = torch.randn(5, 4, dtype=torch.float64)
    torch.testing.assert_close(as_logits(z.softmax(1), "softmax", "probabilities").softmax(1), z.softmax(1))
    torch.testing.assert_close(as_logits(z.sigmoid(), "multilabel", "probabilities"), z)
    single = z[:, :1]
    both = torch.cat([1 - single.sigmoid(), single.sigmoid()], 1)
    torch.testing.assert_close(as_logits(single, "binary", "logits").softmax(1), both)
    torch.testing.assert_close(as_logits(single.sigmoid(), "binary", "probabilities").softmax(1), both)
    for head in ("softmax", "multilabel"):
        assert torch.isfinite(as_logits(torch.tensor([[0.0, 1.0]]), head, "probabilities")).all()  # type: ignore[arg-type]


def rows() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        "ordinary": torch.randn(6, 5, generator=g),
        "two classes": 4 * torch.randn(6, 2, generator=g),
        "p near 1": torch.randn(4, 7, generator=g) + 40 * torch.eye(7)[:4],
        "p at 1 in float32": torch.randn(4, 7, generator=g) + 90 * torch.eye(7)[:4],
        "a tie": torch.tensor([[2.0, 2.0, 1.0], [0.0, 0.0, 0.0]]),
        "large": 1e4 + torch.randn(3, 5, generator=g),
        "a thousand classes": 5 * torch.randn(3, 1000, generator=g),
    }


@pytest.mark.parametrize("case", rows())
def test_log_odds_against_the_plain_formula(case: str) -> None:
    z = rows()[case]
    model = Tiny()
    torch.testing.assert_close(
        log_odds(model, z.double()), plain_log_odds(z.double()), rtol=1e-10, atol=1e-10
    )
    torch.testing.assert_close(log_odds(model, z), plain_log_odds(z.double()).float(), rtol=1e-5, atol=3e-3 if
                               case == "large" else 2e-5)  # fmt: skip
    p = torch.log_softmax(z.double(), -1).exp()
    torch.testing.assert_close(log_odds(model, z.double()).sigmoid(), p, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(probabilities(model, z.double()), p)


def test_gradient_of_log_odds() -> None:
    z = (
        3 * torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    ).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: log_odds(Tiny(), values), z)


def test_heads_of_a_classifier() -> None:
    z = torch.randn(4, 3)
    many = Classifier(network(), ModelSpec("x", ("a", "b", "c"), SIZE, head="multilabel"))
    assert torch.equal(log_odds(many, z), z)
    torch.testing.assert_close(probabilities(many, z), z.sigmoid())
    binary = Classifier(network(1), ModelSpec("x", ("a", "b"), SIZE, head="binary"))
    out = binary(probes(SIZE))
    torch.testing.assert_close(log_odds(binary, out), torch.cat([-out[:, 1:], out[:, 1:]], 1))
