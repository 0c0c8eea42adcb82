"""Language models inside detectors (GLIP, Grounding DINO), taken from local files only."""

import os
from collections.abc import Mapping
from typing import Any

_DEFAULT = "bert-base-uncased"  # of mmdet's BertModel and ATSSVLFusionHead


def with_local_language_models(cfg: Any) -> Any:
    """Replace the names of language models in a detector's config by local folders.

    mmdet's ``BertModel`` and ``ATSSVLFusionHead`` pass a name to ``from_pretrained``, which
    downloads missing models. Here, a name is replaced by its folder in Hugging Face's cache; a
    folder is kept.

    Args:
        cfg: A detector's config or a part of it. It is not modified.

    Returns:
        A copy.

    Raises:
        ValueError: If a language model is neither a folder nor in the cache.
    """
    if isinstance(cfg, Mapping):
        copy = {key: with_local_language_models(value) for key, value in cfg.items()}
        if key := _name_key(cfg):
            copy[key] = _folder(str(cfg.get(key) or _DEFAULT))
        return copy
    if isinstance(cfg, list | tuple):
        return type(cfg)(with_local_language_models(value) for value in cfg)
    return cfg


def _name_key(cfg: Mapping[str, Any]) -> str | None:
    """Key of a module's config that names a language model, or None."""
    kind = cfg.get("type")
    name = kind.split(".")[-1] if isinstance(kind, str) else getattr(kind, "__name__", "")
    if name == "BertModel":
        return "name"
    has_name = name == "ATSSVLFusionHead" or "lang_model_name" in cfg
    return "lang_model_name" if has_name else None


def _folder(name: str) -> str:
    """Folder of a language model, which may be in Hugging Face's cache; the hub is not used."""
    if os.path.isdir(os.path.expanduser(name)):
        return os.path.expanduser(name)
    try:
        from huggingface_hub import try_to_load_from_cache

        file = try_to_load_from_cache(name, "config.json")
    except (ImportError, ValueError):  # ValueError: not a valid name of a model, such as a path
        file = None
    if not isinstance(file, str):
        raise ValueError(
            f"the detector is conditioned on language by {name!r}, which is neither a folder nor "
            "in Hugging Face's cache, and nothing is downloaded for it: name a folder that holds "
            "that language model in the config (lang_model_name, language_model.name)"
        )
    return os.path.dirname(file)
