"""Text pieces while the model generates: a worker thread, whose errors reach the consumer and which stops with it."""

import queue
import threading
from collections.abc import Callable, Iterator

from transformers import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

_END = object()


class _Cancelled(StoppingCriteria):
    """Stops generation at the next token once the consumer is gone."""

    def __init__(self):
        self.event = threading.Event()

    def __call__(self, input_ids, scores, **kwargs):
        import torch

        return torch.full((input_ids.shape[0],), self.event.is_set(), device=input_ids.device, dtype=torch.bool)


class _TokenQueue(BaseStreamer):
    """Hands every new token id of one clip to the consumer's queue."""

    def __init__(self):
        self.items: queue.Queue = queue.Queue()

    def put(self, value):
        for token in value.flatten().tolist():  # the first call hands over the prompt's ids: none, with embeddings
            self.items.put(token)

    def end(self):
        self.items.put(_END)


def stream_text(generate: Callable, decode: Callable[[list[int]], str]) -> Iterator[str]:
    """Run `generate(streamer=…, stopping_criteria=…)` in a thread and yield its text piece by piece.

    Closing the generator (or leaving its loop) stops the generation; an error in it is raised here.
    """
    tokens, cancelled = _TokenQueue(), _Cancelled()

    def work():
        try:
            generate(streamer=tokens, stopping_criteria=StoppingCriteriaList([cancelled]))
        except BaseException as error:  # noqa: BLE001 whatever it is belongs to the consumer
            tokens.items.put(error)
        else:
            tokens.items.put(_END)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        yield from _pieces(tokens.items, decode)
    finally:
        cancelled.event.set()
        worker.join()


def _pieces(items: queue.Queue, decode: Callable[[list[int]], str]) -> Iterator[str]:
    ids: list[int] = []
    sent = ""
    while (item := items.get()) is not _END:
        if isinstance(item, BaseException):
            raise item
        ids.append(item)
        text = decode(ids)
        ready = text.removesuffix("�")  # half a character waits for its other bytes
        if len(ready) > len(sent):
            yield ready[len(sent) :]
            sent = ready
    if len(text := decode(ids)) > len(sent):
        yield text[len(sent) :]
