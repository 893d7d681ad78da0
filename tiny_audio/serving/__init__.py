"""The server: a checkpoint behind HTTP, with the bodies that Inference Endpoints take."""
