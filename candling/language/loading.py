"""Reading a causal language model with its tokenizer: safetensors and JSON, and never any code with them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from candling.errors import ModelError
from candling.models.huggingface import quiet, read_config

__all__ = ["LanguageModel", "open_language_model"]

# transformers builds and ties models through switches of the whole process; two threads would mix them up.
_one_at_a_time = threading.RLock()

_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
_PROBE = "Once upon a time"


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model that is frozen, and its tokenizer.

    network: of transformers, in eval mode. tokenizer: of transformers. name: what it was opened as.
    """

    network: Any
    tokenizer: Any
    name: str = ""

    def __post_init__(self) -> None:
        _check(self.network, self.tokenizer, self.name or type(self.network).__name__)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next((p.device for p in self.network.parameters()), torch.device("cpu"))

    @cached_property
    def vocabulary(self) -> int:
        """How many tokens have an embedding; the tokenizer may know fewer."""
        return int(self.network.get_input_embeddings().weight.shape[0])

    @cached_property
    def longest(self) -> int | None:
        """How many tokens it takes, where its config says."""
        config = self.network.config.get_text_config()
        for name in ("max_position_embeddings", "n_positions", "n_ctx"):
            value = getattr(config, name, None)
            if isinstance(value, int) and value > 0:
                return value
        return None

    @cached_property
    def start(self) -> tuple[int, ...]:
        """The tokens that the tokenizer puts before every text, such as BOS.

        A tokenizer that puts none, and a text that is empty, leave a model nothing to go on; then it is the
        token that begins or ends texts, which models without BOS were trained to begin after.
        """
        plain = self.encode(_PROBE)
        whole = list(self.tokenizer.encode(_PROBE))
        for place in range(len(whole) - len(plain) + 1):
            if whole[place : place + len(plain)] == plain:
                return tuple(whole[:place])
        return ()

    @property
    def begin(self) -> tuple[int, ...]:
        """`start`, or where that is nothing the token that begins or ends texts: before an empty prompt."""
        if self.start:
            return self.start
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return (int(token),)
        return ()

    @cached_property
    def special(self) -> frozenset[int]:
        """Tokens that are no text: BOS, EOS, padding and the like."""
        return frozenset(int(one) for one in self.tokenizer.all_special_ids)

    @cached_property
    def ends(self) -> frozenset[int]:
        """Tokens after which nothing more is said: the tokenizer's, and those that the model generates by."""
        generates = getattr(self.network, "generation_config", None)
        named = [self.tokenizer.eos_token_id, getattr(generates, "eos_token_id", None)]
        every = [one for name in named for one in (name if isinstance(name, list | tuple) else [name])]
        return frozenset(int(one) for one in every if one is not None)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without any that the tokenizer puts around it."""
        return [int(one) for one in self.tokenizer.encode(text, add_special_tokens=False)]

    def decode(self, tokens: Any) -> str:
        """The text of tokens, as it is: nothing is tidied up."""
        plain = [int(one) for one in tokens]
        return str(self.tokenizer.decode(plain, clean_up_tokenization_spaces=False))

    def pieces(self, tokens: Any) -> list[str]:
        """What each token is called, ``▁`` for a space before it.

        Names of tokenizers of bytes are spelled in letters that stand for bytes; they are read as text where
        a token is one.
        """
        plain = [int(one) for one in tokens]
        names = [str(name) for name in self.tokenizer.convert_ids_to_tokens(plain)]
        if not self._of_bytes:
            return names
        texts = [self.decode([one]).replace(" ", "▁").replace("\n", "⏎") for one in plain]
        return [name if "�" in text or not text else text for name, text in zip(names, texts, strict=True)]

    @cached_property
    def _of_bytes(self) -> bool:
        return any(name.startswith("Ġ") for name in self.tokenizer.get_vocab())


def open_language_model(source: str | Path | LanguageModel) -> LanguageModel:
    """The model of a folder in the format of transformers, or of a repository on the Hugging Face hub.

    Raises
    ------
    ModelError
        If it cannot be read, is no causal language model, names code, or its tokenizer does not go with it.
    """
    if isinstance(source, LanguageModel):
        return source
    with _one_at_a_time:
        return _opened(source)


def _opened(source: str | Path) -> LanguageModel:
    folder = Path(source)
    if not folder.is_dir():
        folder = _fetched(str(source))
    adapter = folder / "adapter_config.json"
    if adapter.is_file() and not (folder / "config.json").is_file():
        return _adapted(folder, str(source))
    config = read_config(folder)
    _refuse_other_kinds(config, folder)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    causal: Any = AutoModelForCausalLM
    with quiet():
        try:
            network, info = causal.from_pretrained(
                folder,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError) as error:
            raise ModelError(f"{source}: no causal language model can be read ({_first(error)})") from error
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError, TypeError, ImportError) as error:
            raise ModelError(
                f"{source}: its tokenizer cannot be read ({_first(error)}); "
                "save it beside the weights with tokenizer.save_pretrained"
            ) from error
    lacking = sorted({*info["missing_keys"], *(key[0] for key in info["mismatched_keys"])})
    if lacking:
        raise ModelError(
            f"{source}: {len(lacking)} weights are missing or of another shape, the first is {lacking[0]}"
        )
    return LanguageModel(network.eval().requires_grad_(False), tokenizer, str(source))


def _adapted(folder: Path, name: str) -> LanguageModel:
    """A model with the adapter of a folder on it, merged into its weights."""
    try:
        from peft import AutoPeftModelForCausalLM
    except ModuleNotFoundError as error:
        raise ModelError(f"{name}: is an adapter, which needs peft; install candling[peft]") from error
    from transformers import AutoTokenizer

    with quiet():
        try:
            network = AutoPeftModelForCausalLM.from_pretrained(str(folder)).merge_and_unload()
            base = str(network.config._name_or_path)
            place = folder if any(folder.glob("tokenizer*")) else base
            tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
            raise ModelError(f"{name}: the adapter cannot be read ({_first(error)})") from error
    return LanguageModel(network.eval().requires_grad_(False), tokenizer, name)


def _fetched(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(name, allow_patterns=[*_FILES, "*.safetensors"]))
    except (OSError, ValueError, HfHubHTTPError, RuntimeError) as error:
        raise ModelError(
            f"{name}: no such folder, and the hub did not give it ({_first(error)}); name a local folder"
        ) from error


def _refuse_other_kinds(config: dict[str, Any], folder: Path) -> None:
    made = " ".join(map(str, config.get("architectures") or ()))
    if config.get("is_encoder_decoder"):
        raise ModelError(
            f"{folder}: {made or config['model_type']} is a sequence-to-sequence model; "
            "a causal language model is wanted, one that continues a text"
        )
    if "ForMaskedLM" in made or "ForPreTraining" in made:
        raise ModelError(
            f"{folder}: {made} is a masked language model; "
            "a causal language model is wanted, one that continues a text"
        )


def _check(network: Any, tokenizer: Any, name: str) -> None:
    """See that both go together.

    Raises
    ------
    ModelError
        If the tokenizer makes tokens that the model has no embedding for, or none.
    """
    embeddings = network.get_input_embeddings()
    if embeddings is None or network.get_output_embeddings() is None:
        raise ModelError(f"{name}: a causal language model has embeddings of tokens, and logits of them")
    most = max(tokenizer.get_vocab().values(), default=-1)
    rows = int(embeddings.weight.shape[0])
    if most >= rows:
        raise ModelError(
            f"{name}: the tokenizer knows token {most}, the model has {rows}; they do not belong together"
        )
    if most < 1:
        raise ModelError(
            f"{name}: its tokenizer knows no tokens; save it beside the weights (save_pretrained)"
        )


def _first(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
