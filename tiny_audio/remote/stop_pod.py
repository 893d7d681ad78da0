"""Stops a RunPod pod from inside it: `python3 stop_pod.py POD_ID`, by whichever of four ways answers.

The keys are the job's own, where it was given one, and the one that RunPod gives to every pod. Standard library, Python 3.8.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path

KEY = "RUNPOD_API_KEY"
URL = "https://api.runpod.io"
SECONDS = 15.0  # for each try; all of them within the THEN_SECONDS of the runner
QUERY = "mutation stop($input: PodStopInput!) { podStop(input: $input) { id desiredStatus } }"


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    """The key goes nowhere else."""

    def redirect_request(self, *arguments: object, **others: object) -> None:
        return None


def keys() -> list[str]:
    """Of this process, and of the container's first, whose environment an SSH session does not have."""
    found = [os.environ.get(KEY, "")]
    try:
        for entry in Path("/proc/1/environ").read_bytes().split(b"\0"):
            name, _, value = entry.decode("utf-8", "replace").partition("=")
            found += [value] if name == KEY else []
    except OSError:
        pass
    return list(dict.fromkeys(filter(None, found)))


def post(url: str, key: str, body: dict[str, object]) -> dict[str, object]:
    """The JSON that answers; OSError or ValueError for anything but success."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "User-Agent": "tiny-audio"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.build_opener(_NoRedirection).open(request, timeout=SECONDS) as response:
        answer = json.loads(response.read() or b"{}")
    if answer.get("errors"):
        raise ValueError(answer["errors"][0].get("message", "an error"))
    return answer


def by_rest(pod: str, url: str, key: str) -> None:
    post(f"{url}/v2/pods/{pod}/action", key, {"action": "stop"})


def by_graphql(pod: str, url: str, key: str) -> None:
    post(f"{url}/graphql", key, {"query": QUERY, "variables": {"input": {"podId": pod}}})


def by_program(*words: str) -> None:
    """runpodctl, which RunPod puts on its pods."""
    subprocess.run(["runpodctl", *words], check=True, timeout=SECONDS, stdout=subprocess.DEVNULL)


def main() -> int:
    pod, url = sys.argv[1], os.environ.get("RUNPOD_API_URL", URL).rstrip("/")
    known = keys()
    ways = [(way.__name__, partial(way, pod, url, key)) for way in (by_rest, by_graphql) for key in known]
    ways += [
        (f"runpodctl {' '.join(words)}", partial(by_program, *words))
        for words in (("pod", "stop", pod), ("stop", "pod", pod))
    ]
    for name, way in ways:
        try:
            way()
        except (OSError, ValueError, AttributeError, http.client.HTTPException, subprocess.SubprocessError) as error:
            said = str(error)
            for key in known:
                said = said.replace(key, "***")
            print(f"{name}: {said}")
        else:
            print(f"{name}: the pod {pod} stops.")
            return 0
    print(f"The pod {pod} could not be stopped; stop it by hand, it costs money: https://console.runpod.io/pods")
    return 1


if __name__ == "__main__":
    sys.exit(main())
