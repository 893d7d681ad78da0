"""How to use a model, as a reader of its card copies it: every block of Python runs by itself."""

from tiny_audio.hub.card.facts import Facts

PIPELINE = 'pipeline("automatic-speech-recognition", model="{model}", trust_remote_code=True{options})'


def usage(facts: Facts) -> str:
    """The section; word times only where there is a CTC head to give them."""
    blocks = [_one(facts), _many(facts), *([_word_times(facts)] if facts.config.ctc_vocabulary else [])]
    return "\n\n".join(["## Usage", *blocks, _on_a_gpu(facts), _in_python(facts), _command(facts)])


def _one(facts: Facts) -> str:
    return (
        "Any file that FFmpeg reads, in any sampling rate; a bare NumPy array is taken as 16 kHz mono.\n\n"
        + _python(
            "from transformers import pipeline",
            "",
            f"recognise = {_pipeline(facts)}",
            'print(recognise("speech.wav")["text"])',
        )
    )


def _many(facts: Facts) -> str:
    return "Several at once:\n\n" + _python(
        "from transformers import pipeline",
        "",
        f"recognise = {_pipeline(facts)}",
        'for result in recognise(["one.wav", "two.wav"], batch_size=8):',
        '    print(result["text"])',
    )


def _word_times(facts: Facts) -> str:
    return "When each word was said, in seconds:\n\n" + _python(
        "from transformers import pipeline",
        "",
        f"recognise = {_pipeline(facts)}",
        'for word in recognise("speech.wav", return_timestamps="word")["chunks"]:',
        '    print(word["timestamp"], word["text"])',
    )


def _on_a_gpu(facts: Facts) -> str:
    return "On a GPU, in half precision:\n\n" + _python(
        "import torch",
        "from transformers import pipeline",
        "",
        'place = {"device": "cuda", "dtype": torch.float16} if torch.cuda.is_available() else {}',
        f"recognise = {_pipeline(facts, ', **place')}",
        'print(recognise("speech.wav")["text"])',
    )


def _in_python(facts: Facts) -> str:
    return "With the library of tiny-audio, step by step:\n\n" + _python(
        "from tiny_audio import ASRModel, ASRProcessor, load_audio",
        "",
        f'model = ASRModel.from_pretrained("{facts.repository}")',
        f'processor = ASRProcessor.from_pretrained("{facts.repository}")',
        'inputs = processor(audio=load_audio("speech.wav"), sampling_rate=16_000)',
        "tokens = model.generate(**inputs, max_new_tokens=256)",
        "print(processor.batch_decode(tokens, skip_special_tokens=True)[0])",
        'print(model.transcribe("speech.wav"))  # the same in one call, for audio of any length',
    )


def _command(facts: Facts) -> str:
    line = f"ta transcribe -m {facts.repository} speech.wav -f srt"
    return f"On the command line, as text or subtitles:\n\n```bash\n{line}\n```"


def _pipeline(facts: Facts, options: str = "") -> str:
    return PIPELINE.format(model=facts.repository, options=options)


def _python(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])
