"""Sound before the model: reading it, its log-mel frames, long recordings cut into windows. Exported beside the model."""
