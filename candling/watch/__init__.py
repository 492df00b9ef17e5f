"""Watching a training: a cheap record every few steps, from which `candling trend` tells what came when."""

from candling.watch.callback import transformers_callback
from candling.watch.watcher import Watcher

__all__ = ["Watcher", "transformers_callback"]
