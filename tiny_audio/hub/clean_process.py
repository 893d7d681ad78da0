"""Whether a staged folder works without tiny-audio: transformers alone loads it in a process of its own and transcribes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from tiny_audio.assets import embedded
from tiny_audio.errors import TinyAudioError

CLIP = "send-a-message-to-jack.ogg"
TRANSCRIBE = """
import sys
sys.modules["tiny_audio"] = None  # as on a machine that has it not
from transformers import pipeline
folder, clip = sys.argv[1:]
recogniser = pipeline("automatic-speech-recognition", folder, trust_remote_code=True)
text = recogniser(clip)["text"]
sys.path.append(folder)
from handler import EndpointHandler
with open(clip, "rb") as file:
    assert EndpointHandler(folder, recogniser)({"inputs": file.read()})["text"] == text
print(text)
"""
IMPORT = """
import json, sys
sys.modules["tiny_audio"] = None  # as on a machine that has it not
from transformers import AutoConfig
from transformers.dynamic_module_utils import get_class_from_dynamic_module
config = AutoConfig.from_pretrained(sys.argv[1], trust_remote_code=True)
for reference in {*config.auto_map.values(), *(entry["impl"] for entry in config.custom_pipelines.values())}:
    get_class_from_dynamic_module(reference, sys.argv[1])
"""


def check_loads(folder: Path, name: str) -> str:
    """Loads the folder in a clean process, and lets pipeline and handler transcribe; what was seen, in one sentence.

    Args:
        folder: a staged one.
        name: of the model that it was staged from, for an error.

    Where encoder or language model are on the Hub and not in this machine's cache, only config and code are loaded.

    Raises:
        TinyAudioError: it does not load, or fails at a shipped clip.
    """
    if parts_are_here(folder):
        heard = in_clean_process(name, TRANSCRIBE, folder, embedded("clips") / CLIP).strip()
        return f"In a clean process it loads, and hears {heard!r} in a shipped clip."
    in_clean_process(name, IMPORT, folder)
    return "In a clean process its code loads; encoder and language model are not in the cache here and were not tried."


def parts_are_here(folder: Path) -> bool:
    """Whether encoder and language model are inside, or in the cache of this machine."""
    from huggingface_hub import try_to_load_from_cache

    config = json.loads((folder / "config.json").read_text("utf-8"))
    ids = [config[key] for key in ("audio_model_id", "text_model_id") if not config.get("self_contained")]
    return all(isinstance(try_to_load_from_cache(part, "config.json"), str) for part in ids)


def in_clean_process(name: str, script: str, folder: Path, *arguments: Path) -> str:
    """What the script prints, without network, without this folder's modules and without code that was cached before."""
    with TemporaryDirectory() as modules:
        quiet = {"HF_HUB_OFFLINE": "1", "HF_MODULES_CACHE": modules, "TRANSFORMERS_VERBOSITY": "error"}
        command = [sys.executable, "-I", "-B", "-c", script, *map(str, (folder, *arguments))]
        done = subprocess.run(command, check=False, env=os.environ | quiet, cwd=modules, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise TinyAudioError(
            f"{name} does not load in a clean process ({reason.replace(str(folder), name)}); nothing was pushed: see what "
            f"`ta transcribe -m {name} CLIP` says of it."
        )
    return done.stdout
