"""What an attack is after: a class that each row is to be taken for, or one that it no longer is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from candling.errors import ParamsError
from candling.models.heads import class_odds, class_shares
from candling.models.spec import Head

__all__ = ["Goal", "Targeted", "Untargeted"]

_NO_DIGITS_LEFT = 0.999  # probability above which float32 loses 1 - p, and with it the gradient of log p


class Goal(ABC):
    """A class for each of R rows, and what an attack makes of it.

    Parameters
    ----------
    classes
        (R,) places of logits, as int64 or as a sequence of ints.

    Raises
    ------
    ParamsError
        If they are not (R,) whole numbers from 0.
    """

    def __init__(self, classes: Tensor | Sequence[int]) -> None:
        given = torch.as_tensor(classes)
        whole = not given.is_floating_point() and given.dtype != torch.bool
        if given.dim() != 1 or (len(given) and (not whole or int(given.min()) < 0)):
            raise ParamsError(f"a goal has one class a row, a whole number from 0, not {classes!r}")
        self.classes = given.long().cpu()

    def __len__(self) -> int:
        return len(self.classes)

    def __repr__(self) -> str:
        shown = ", ".join(map(str, self.classes[:6].tolist()))
        more = f", … {len(self)} rows" if len(self) > 6 else ""
        return f"{type(self).__name__}([{shown}{more}])"

    @abstractmethod
    def descent(self, logits: Tensor, classes: Tensor, head: Head) -> Tensor:
        """What falls as rows of logits (B, K) get nearer to the goal, (B,); classes (B,) are theirs."""

    @abstractmethod
    def sure(self, logits: Tensor, classes: Tensor, head: Head) -> Tensor:
        """The probability (B,) of what fools, and below 0 where the rows are not fooled."""


class Targeted(Goal):
    """Each row is to be taken for its class: that class has the highest logit."""

    def descent(self, logits: Tensor, classes: Tensor, head: Head) -> Tensor:
        """-log p of the class."""
        if head == "multilabel":
            return -F.logsigmoid(_of(logits, classes))
        return F.cross_entropy(logits, classes, reduction="none")

    def sure(self, logits: Tensor, classes: Tensor, head: Head) -> Tensor:
        """The class's probability where it is the highest."""
        found = _of(class_shares(logits, head), classes)
        return torch.where(logits.argmax(1) == classes, found, -1.0)


class Untargeted(Goal):
    """Each row is to be taken for any class but its own: another one has the highest logit."""

    def descent(self, logits: Tensor, classes: Tensor, head: Head) -> Tensor:
        """log p of the label, or its log-odds where p leaves log p no digits; both fall the same way."""
        if head == "multilabel":
            log_p = F.logsigmoid(_of(logits, classes))
        else:
            log_p = -F.cross_entropy(logits, classes, reduction="none")
        certain = log_p.exp() > _NO_DIGITS_LEFT
        if not certain.any():
            return log_p
        return torch.where(certain, _of(class_odds(logits, head), classes), log_p)

    def sure(self, logits: Tensor, classes: Tensor, head: Head) -> Tensor:
        """The highest class's probability where it is another one."""
        best = logits.argmax(1)
        return torch.where(best != classes, _of(class_shares(logits, head), best), -1.0)


def _of(values: Tensor, classes: Tensor) -> Tensor:
    """Of each row (B, K) the value of its class."""
    return values.gather(1, classes[:, None])[:, 0]
