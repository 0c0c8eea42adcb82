"""Language models inside detectors (GLIP, Grounding DINO): from files at hand, or not at all."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_DEFAULT = "bert-base-uncased"  # of mmdet's BertModel and ATSSVLFusionHead
_LANGUAGE_MODELS = ("BertModel",)
_NAMING_HEADS = ("ATSSVLFusionHead",)


def with_language_models_at_hand(cfg: Any) -> Any:
    """Let a detector's config name its language models by folders instead of by names of a hub.

    mmdet's ``BertModel`` and ``ATSSVLFusionHead`` pass a name to ``from_pretrained``, which
    downloads what is not there. A folder stays as it is; a name is replaced by its folder in
    Hugging Face's cache.

    Args:
        cfg: A detector's config or a part of it. It is not changed.

    Returns:
        A copy.

    Raises:
        ValueError: If a language model is neither a folder nor in the cache.
    """
    if isinstance(cfg, Mapping):
        copy = {key: with_language_models_at_hand(value) for key, value in cfg.items()}
        if key := _key_of_name(cfg):
            copy[key] = _folder(str(cfg.get(key) or _DEFAULT))
        return copy
    if isinstance(cfg, list | tuple):
        return type(cfg)(with_language_models_at_hand(value) for value in cfg)
    return cfg


def _key_of_name(cfg: Mapping[str, Any]) -> str | None:
    """Give the argument of a module that names a language model, or None."""
    kind = cfg.get("type")
    name = kind.split(".")[-1] if isinstance(kind, str) else getattr(kind, "__name__", "")
    if name in _LANGUAGE_MODELS:
        return "name"
    return "lang_model_name" if name in _NAMING_HEADS or "lang_model_name" in cfg else None


def _folder(name: str) -> str:
    """Find the folder of a language model."""
    if os.path.isdir(os.path.expanduser(name)):
        return os.path.expanduser(name)
    cached = _in_cache(name)
    if cached is None:
        raise ValueError(
            f"the detector is conditioned on language by {name!r}, which is neither a folder nor "
            "in Hugging Face's cache, and nothing is downloaded for it: name a folder that holds "
            "that language model in the config (lang_model_name, language_model.name)"
        )
    return str(cached)


def _in_cache(name: str) -> Path | None:
    """Find a model in Hugging Face's cache without asking its hub."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    try:
        file = try_to_load_from_cache(name, "config.json")
    except ValueError:  # no name that a hub could have, such as a path
        return None
    return Path(file).parent if isinstance(file, str) else None
