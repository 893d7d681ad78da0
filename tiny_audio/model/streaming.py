"""Text pieces while the model generates: a worker thread, whose errors reach the consumer and which stops with it."""

import threading
from collections.abc import Callable, Iterator

import torch
from transformers import StoppingCriteriaList, TextIteratorStreamer


class _Pieces(TextIteratorStreamer):
    """Hands over every new character; transformers' own waits for a space, which not every language has."""

    def put(self, value):
        self.token_cache += (
            value.flatten().tolist()
        )  # the first call hands over the prompt's ids: none, with embeddings
        ready = self.tokenizer.decode(self.token_cache).removesuffix("�")  # half a character waits for its other bytes
        self.text_queue.put(ready[self.print_len :])  # type: ignore[has-type]
        self.print_len = max(self.print_len, len(ready))  # type: ignore[has-type]


def stream_text(generate: Callable, decoder) -> Iterator[str]:
    """Run `generate(streamer=…, stopping_criteria=…)` in a thread and yield its text, as `decoder.decode(ids)` has it.

    Closing the generator (or leaving its loop) stops the generation; an error in it is raised here.
    """
    pieces, cancelled = _Pieces(decoder), threading.Event()

    def stop(input_ids, scores, **kwargs):
        return torch.full((len(input_ids),), cancelled.is_set(), device=input_ids.device)

    def work():
        try:
            generate(streamer=pieces, stopping_criteria=StoppingCriteriaList([stop]))
        except BaseException as error:  # noqa: BLE001 whatever it is belongs to the consumer
            pieces.text_queue.put(error)
        pieces.text_queue.put(pieces.stop_signal)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        for piece in pieces:
            if isinstance(piece, BaseException):
                raise piece
            if piece:
                yield piece
    finally:
        cancelled.set()
        worker.join()
