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
    spec = folder / "spec.json"
    architecture = _architecture(spec) if spec.is_file() else None
    if architecture == "http":
        files = [spec]
    elif architecture == "onnx":
        files = [spec, *(sorted(folder.glob("*.onnx*")) or [folder / "model.onnx"])]
    else:
        files = [spec, folder / "model.safetensors"]
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
    """Sha256 of the files of a model's folder and those within, of their names and bytes; hidden ones aside.

    Raises
    ------
    ModelError
        If there are none, or one cannot be read.
    """
    total = hashlib.sha256()
    try:
        names = {
            file.relative_to(folder).as_posix(): file
            for file in folder.rglob("*")
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        }
        for name, file in sorted(names.items()):
            total.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    except OSError as error:
        raise ModelError(f"{folder}: cannot be read ({error.strerror})") from error
    if not names:
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
