"""A warm start for documented commands: a process that has imported torch and transformers, and forks for each `ta` and `python`.

`python tests/docs_server.py SOCKET` serves. A client is CLIENT under the name `ta` or `python`, first on the PATH: it sends its
arguments, environment, folder and open files, and a child goes on as that process. What runs there is the real thing:
`tiny_audio.cli.main.main`, or Python's own way into a program. Only the imports have happened before.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import sys
import threading
from contextlib import suppress

CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
link = socket.socket(socket.AF_UNIX)
link.connect({address!r})
asked = dict(program=os.path.basename(sys.argv[0]), arguments=sys.argv[1:], folder=os.getcwd(), group=os.getpgrp())
sent = json.dumps(asked | dict(environment=dict(os.environ))).encode()
socket.send_fds(link, [len(sent).to_bytes(4, "big")], [0, 1, 2])
link.sendall(sent)
child = int(link.recv(20))
signal.signal(signal.SIGINT, signal.SIG_IGN)  # it reaches the child, which is in the same process group
signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
code = int(link.recv(20) or b"1")
sys.exit(code if code >= 0 else 128 - code)
"""


def serve(address: str) -> None:
    """A supervisor for each client, which tells it the child's number and exit code; returns in that child."""
    tests = os.getppid()
    # Nothing is computed here, since threads do not survive a fork.
    import datasets  # noqa: F401
    import jiwer  # noqa: F401
    import peft  # noqa: F401
    import torch  # noqa: F401
    from transformers import AutoModelForCausalLM, GlmAsrEncoder, Qwen3ForCausalLM, Trainer  # noqa: F401

    import tiny_audio.evaluation
    import tiny_audio.training.plan
    import tiny_audio.training.run  # noqa: F401

    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # supervisors vanish when they are done
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        door.settimeout(1)
        while os.getppid() == tests:
            with suppress(TimeoutError):
                link, _ = door.accept()
                if os.fork() == 0:
                    break
                link.close()
        else:
            sys.exit()  # they were killed
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, files, *_ = socket.recv_fds(link, 4, 3)
    asked = json.loads(link.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
    if child := os.fork():
        link.send(str(child).encode())
        link.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())
        os._exit(0)
    link.close()
    become(asked, files)


def become(asked: dict, files: list[int]) -> None:
    """This process becomes the one that was asked for."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.setpgid(0, asked["group"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    run = run_ta if asked["program"] == "ta" else run_python
    try:
        run(asked["arguments"])
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException:  # noqa: BLE001 - as Python ends
        sys.excepthook(*sys.exc_info())
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code)  # to free what was imported takes seconds


def run_ta(arguments: list[str]) -> None:
    from tiny_audio.cli.main import main

    sys.argv = ["ta", *arguments]
    main()


def run_python(arguments: list[str]) -> None:
    """`python -m MODULE …`, `python -c CODE …`, `python FILE …` or `python -`."""
    how, *rest = arguments
    sys.argv = arguments
    sys.path[0] = {"-m": os.getcwd(), "-c": "", "-": ""}.get(how, os.path.dirname(os.path.abspath(how)))
    if how == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif how in ("-c", "-"):
        code = rest.pop(0) if how == "-c" else sys.stdin.read()
        sys.argv = [how, *rest]
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
    else:
        runpy.run_path(how, run_name="__main__")


if __name__ == "__main__":
    serve(sys.argv[1])
