"""What a minute of audio costs: what the command says, else the user's own prices.toml."""

import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from tiny_audio.errors import TinyAudioError
from tiny_audio.evaluation.providers import choose_provider, model_of
from tiny_audio.evaluation.settings import EvalSettings

TABLE = "usd_per_minute"


def priced(settings: EvalSettings) -> EvalSettings:
    """The settings with the price of prices.toml where they name none: of `provider/model`, else of `provider`.

    Raises:
        TinyAudioError: the file is no TOML, or the price is no number of at least 0.
    """
    if settings.price_per_minute is not None or not (prices := _prices()):
        return settings
    provider = choose_provider(settings)
    price = prices.get(f"{provider}/{model_of(settings)}", prices.get(provider))
    if isinstance(price, bool) or not isinstance(price, int | float | None):
        raise TinyAudioError(f"The price {price!r} in {prices_file()} is no number.")
    return replace(settings, price_per_minute=price)


def cost_usd(settings: EvalSettings, audio_seconds: float) -> float | None:
    """US dollars for so much audio; None where nobody said what it costs."""
    price = settings.price_per_minute
    return None if price is None else round(audio_seconds / 60 * price, 6)


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
        raise TinyAudioError(f"{prices_file()} holds no table of prices: expected [{TABLE}], then `provider = 0.01`.")
    return table
