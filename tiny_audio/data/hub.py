"""Datasets of the Hugging Face Hub, loaded through `datasets`, with errors of one line."""

import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

from tiny_audio.errors import TinyAudioError

from .config import DataConfig

REACH_SECONDS = 4.0
CONVERTED = (
    "refs/convert/parquet"  # the Hub's own Parquet copy, of at most 5 GB a split; a configuration is a folder there
)


def hub_splits(config: DataConfig) -> list[str]:
    """Names of the splits of a Hub dataset.

    Raises:
        TinyAudioError: unknown dataset, unknown or missing configuration, or no network.
    """
    import datasets

    with _one_line_errors(config), offline_if_unreachable():
        builder = datasets.load_dataset_builder(config.path, **_version(config))
        if builder.info.splits:
            return list(builder.info.splits)
        if isinstance(builder.config.data_files, dict):
            return [str(split) for split in builder.config.data_files]
        return datasets.get_dataset_split_names(config.path, config.config, revision=config.revision)


def load_hub(config: DataConfig, split: str, streaming: bool = False) -> Any:
    """One split as a `datasets.Dataset` (fetched and memory-mapped) or, streaming, an `IterableDataset`."""
    import datasets

    with _one_line_errors(config), offline_if_unreachable():
        return datasets.load_dataset(config.path, split=split, streaming=streaming, **_version(config))


def _version(config: DataConfig) -> dict[str, Any]:
    if config.revision == CONVERTED:
        return {"data_dir": config.config, "revision": CONVERTED}
    return {"name": config.config, "revision": config.revision}


@contextmanager
def _one_line_errors(config: DataConfig) -> Iterator[None]:
    try:
        yield
    except TinyAudioError:
        raise
    except Exception as error:
        message = _explained(error, config)
        if message is None:
            raise
        raise TinyAudioError(message) from error


def _explained(error: Exception, config: DataConfig) -> str | None:
    """What to tell the user about an error of `datasets`; None for one that is a bug, which keeps its traceback."""
    from datasets.exceptions import DatasetsError

    name, reason = config.path, str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if isinstance(error, ConnectionError | TimeoutError):
        return (
            f"The dataset {name} is not a local path, and the Hugging Face Hub cannot be reached ({reason}); "
            "check the path or the network."
        )
    if isinstance(error, ValueError) and ("Config name is missing" in reason or "BuilderConfig" in reason):
        return _config_message(name, config.config, str(error))
    if isinstance(error, ValueError) and "trust_remote_code" in str(error) or "scripts are no longer" in str(error):
        return (
            f"The dataset {name} is a loading script, which `datasets` no longer runs; use the Hub's Parquet conversion of "
            f"it, data.revision={CONVERTED} (5 GB a split at most), or another."
        )
    if isinstance(error, DatasetsError | FileNotFoundError):
        return f"The dataset {name} is neither a local path nor readable on the Hugging Face Hub: {reason}"
    return None


def _config_message(name: str, given: str | None, text: str) -> str:
    listed = re.search(r"\[(.*?)\]", text, re.DOTALL)
    known = re.findall(r"'([^']+)'", listed.group(1)) if listed else []
    nearest = get_close_matches(given or "", known, n=1)
    found = f"has no configuration `{given}`" if given else "has several configurations"
    hint = f"did you mean data.config={nearest[0]}?" if nearest else "choose one with data.config=NAME."
    return f"The dataset {name} {found} (known: {', '.join(known)}); {hint}"


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Without network, takes what is in the cache at once, instead of five retries of each request."""
    from huggingface_hub import constants

    # `datasets` keeps a switch of its own; where it is not loaded it has nothing to fetch.
    switches: list[Any] = [constants, *filter(None, [sys.modules.get("datasets.config")])]
    before = [switch.HF_HUB_OFFLINE for switch in switches]
    if not any(before) and not _reachable(constants.ENDPOINT):
        for switch in switches:
            switch.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.HF_HUB_OFFLINE = value


def _reachable(endpoint: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        return isinstance(error.reason, ssl.SSLError)  # a server is there: let the Hub's own client judge it
    except OSError:
        return False
    return True
