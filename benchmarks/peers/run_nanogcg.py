"""nanoGCG in its own environment; see `benchmarks.peers`.

By the defaults of its function, but for the start and the number of steps, which the benchmark gives, and its
prefix cache, which transformers changes in place.
"""

from __future__ import annotations

import time
import warnings
from typing import Any

import nanogcg
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.peers.common import answer


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """For each case (start, target, seed, budget) the best string at the end of each step, and seconds."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(request["model"]).eval()
    tokenizer = AutoTokenizer.from_pretrained(request["model"])
    # As a base model has none, and nanoGCG would set this one itself.
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
    forward, spent = model.forward, [0]

    def counted(*given: Any, **named: Any) -> Any:
        embeds = named["inputs_embeds"]
        spent[0] += embeds.shape[0] * embeds.shape[1] * (3 if torch.is_grad_enabled() else 1)
        return forward(*given, **named)

    model.forward = counted
    rows = []
    for case in request["cases"]:
        spent[0] = 0
        # A step is one pass forward and back, and as many rows forward as candidates.
        length = case["tokens"]
        steps = max(1, round(case["budget"] / (length * (512 + 3))))
        config = nanogcg.GCGConfig(
            num_steps=steps, optim_str_init=case["start"], seed=case["seed"], use_prefix_cache=False,
            allow_non_ascii=True, verbosity="ERROR",
        )  # fmt: skip
        began = time.process_time()
        try:
            found = nanogcg.run(model, tokenizer, "", case["target"], config)
            strings, losses = found.strings, found.losses
        except RuntimeError as error:  # where no candidate is the same after its text is read again
            strings, losses = [case["start"]], [float("nan")]
            print(f"nanogcg: {error}")
        best = min(range(len(losses)), key=lambda i: losses[i])
        rows.append({"text": strings[best], "evaluations": spent[0], "seconds": time.process_time() - began})
    return {"rows": rows}


if __name__ == "__main__":
    answer(handle)
