"""The model's card on the Hub: written from what was measured, and written again without touching what the user wrote."""

from tiny_audio.hub.card.page import card_text

__all__ = ["card_text"]
