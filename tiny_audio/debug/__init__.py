"""Why a model does not learn: its gradients, weights, routing and LoRA as tables and a PNG; parameters by experiment."""
