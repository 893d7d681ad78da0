"""What a minute of audio costs: what the command says, or the user's own prices.toml."""

import os
import tomllib
from pathlib import Path
from typing import Any

from tiny_audio.errors import TinyAudioError

TABLE = "usd_per_minute"


def price_per_minute(provider: str, model: str) -> float | None:
    """US dollars for a minute of audio by prices.toml: of `provider/model`, else of `provider`, else None.

    Raises:
        TinyAudioError: the file is no TOML, or a price is no number of at least 0.
    """
    prices = _prices()
    price = prices.get(f"{provider}/{model}", prices.get(provider))
    if price is None:
        return None
    if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < float("inf"):
        raise TinyAudioError(f"The price {price!r} in {prices_file()} is no number of at least 0.")
    return float(price)


def prices_file() -> Path:
    """Where the prices are, by the XDG base directory specification."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "tiny-audio" / "prices.toml"


def _prices() -> dict[str, Any]:
    try:
        table = tomllib.loads(prices_file().read_text(encoding="utf-8")).get(TABLE, {})
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise TinyAudioError(f"{prices_file()} is no TOML: {error}") from error
    if not isinstance(table, dict):
        raise TinyAudioError(f"{TABLE} in {prices_file()} is no table; expected [{TABLE}] and a price a line.")
    return table
