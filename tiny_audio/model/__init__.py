"""The model itself: encoder, projector, language model, their processor and pipeline; exported with every checkpoint."""
