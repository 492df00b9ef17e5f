"""What a model is known by: digests of its files, which the audit writes down and the gate looks up."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from candling.errors import ModelError

__all__ = ["digest_of", "folder_digest", "model_digest"]


def model_digest(folder: Path) -> str:
    """SHA-256 over spec and weights of a classifier in candling's own form.

    A model behind an address is known by its spec alone, whatever the server makes of it.

    Raises
    ------
    ModelError
        If a file is missing.
    """
    files = [folder / "spec.json", *(sorted(folder.glob("*.onnx*")) or [folder / "model.safetensors"])]
    if files[0].is_file() and not files[1].is_file() and _architecture(files[0]) == "http":
        files = files[:1]
    digest = hashlib.sha256()
    for file in files:
        if not file.is_file():
            raise ModelError(
                f"{folder}: no {file.name} here; a model is a folder with model.safetensors and spec.json"
            )
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def _architecture(file: Path) -> object:
    try:
        spec = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{file}: not readable ({error}); import the model again") from error
    return spec.get("architecture") if isinstance(spec, dict) else None


def folder_digest(folder: Path) -> str:
    """Sha256 of the files of a model's folder, of their names and their bytes.

    Raises
    ------
    ModelError
        If there are none, or one cannot be read.
    """
    total = hashlib.sha256()
    try:
        files = [
            file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith(".")
        ]
        for file in files:
            total.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read ({error.strerror})") from error
    if not files:
        raise ModelError(f"{folder}: holds no model")
    return total.hexdigest()


def digest_of(path: Path) -> str:
    """The digest of a model as it lies there: a classifier's folder, a language model's, or one file.

    Raises
    ------
    ModelError
        If there is nothing, or it cannot be read.
    """
    if path.is_dir():
        return model_digest(path) if (path / "spec.json").is_file() else folder_digest(path)
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: no model can be read there ({error.strerror})") from error
