"""The library transformers, an optional extra: imported when a folder is read, and kept quiet."""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tinypress.errors import ArtifactError, MissingExtra, ModelError

# no look-up in the network and no code of the folder's; attention that torch's exporter takes
SAFELY: Mapping[str, Any] = {"local_files_only": True, "trust_remote_code": False}
_EAGER = "eager"


def library(call: str) -> Any:
    """The module ``transformers``.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise MissingExtra(
            call, "transformers is not installed", "Run: pip install 'tinypress[pretrained]'"
        ) from error


@contextlib.contextmanager
def quietly(transformers: Any) -> Iterator[None]:
    """Without its bars and reports, and with the random state as it was: what matters becomes an error or a note."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def kind_of(call: str, transformers: Any, path: Path, given: Mapping[str, Any]) -> tuple[Any, Any]:
    """The class of the network that ``given``, the config in the folder ``path``, describes, and its config object.

    Raises:
        ModelError: transformers has no such architecture, or the config does not fit it.
    """
    remedy = "Use an architecture of the installed transformers, or build the network in a task file"
    try:
        config = transformers.AutoConfig.from_pretrained(path, **SAFELY)
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        problem = f"config.json of model_type {str(given['model_type'])[:80]!r} was refused: {first}"
        raise ModelError(call, problem, remedy) from error
    config._attn_implementation = _EAGER
    named = given.get("architectures")
    name = named[0] if isinstance(named, list) and named else None
    kind = getattr(transformers, name, None) if isinstance(name, str) and name.isidentifier() else None
    if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
        built_from = getattr(kind, "config_class", None)
        if built_from is not None and not isinstance(config, built_from):
            raise ModelError(call, f"{name} is not built from a {type(config).__name__}", remedy)
        return kind, config
    try:
        return transformers.AutoModel._model_mapping[type(config)], config
    except KeyError as error:
        raise ModelError(call, f"there is no network for a {type(config).__name__}", remedy) from error


def outline(call: str, kind: Any, config: Any) -> nn.Module:
    """The network that ``config`` describes, without memory.

    Raises:
        ArtifactError: it describes none.
    """
    try:
        with torch.device("meta"):
            built: nn.Module = kind(config)
            return built
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ArtifactError(
            call, f"config.json describes no {kind.__name__}: {first}", "Copy the folder again"
        ) from error
