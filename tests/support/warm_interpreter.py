"""Commands that begin in an interpreter which has imported torch: `python` and `gkdbench` without seconds of start-up.

`warm_commands` writes both into a folder, for the front of ``PATH``. Each hands its arguments, folder, environment and
streams to one server, which forks: the fork runs what the command says as a new interpreter would, with nothing of
this repository imported. Workers of a run start cold as ever, since their environment has to be there before torch is.

The walk of a newcomer (tests/docs/test_fresh_environment.py) uses the real commands.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

WARM = ("torch", "numpy", "pydantic", "pytest", "hypothesis")
"""What most commands import that is not of this repository."""
COLD = "gkdbench.execute."
"""Modules that are started for their own process: the beginning of their names after ``-m``."""
SCRIPT = """#!/bin/sh
case "$1 $2" in "-m {cold}"*) exec {python} "$@";; esac
exec {python} -I -S {here} call {socket} {name} "$@"
"""
_STREAMS = (0, 1, 2)


@contextmanager
def warm_commands(folder: Path, warm: Sequence[str] = WARM) -> Iterator[Path]:
    """A folder with `python` and `gkdbench`; what they start is over when the block ends.

    Args:
        folder: is made. warm: modules to import beforehand.
    """
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as short:  # the address of a socket has about 100 characters at most
        address = Path(short) / "socket"
        for name in ("python", "gkdbench"):
            words = {"cold": COLD, "python": sys.executable, "here": Path(__file__).resolve()}
            script = folder / name
            script.write_text(SCRIPT.format(**words, socket=address, name=name), encoding="utf-8")
            script.chmod(0o755)
        command = [sys.executable, str(Path(__file__).resolve()), "serve", str(address), str(folder / "python"), *warm]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as server:
            assert server.stdout is not None  # a pipe was requested
            try:
                assert server.stdout.readline() == b"ready\n", "the warm interpreter did not start"
                yield folder
            finally:
                server.kill()


def call(address: str, name: str, arguments: Sequence[str]) -> int:
    """Run a command in a fork of the server at `address`, on the streams of this process; its exit code."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(address)
        asked = json.dumps([name, list(arguments), os.getcwd(), dict(os.environ)]).encode()
        socket.send_fds(server, [len(asked).to_bytes(8, "big")], _STREAMS)
        server.sendall(asked)
        code = server.recv(16)
    return int(code or b"70")


def serve(address: str) -> tuple[str, list[str]]:
    """Answer calls until this process is killed; returns (name, arguments) in a fork that is to run them."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait for a command
    print("ready", flush=True)
    while True:
        client, _ = listening.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listening.close()
            return _answered(client)
        client.close()


def _answered(client: socket.socket) -> tuple[str, list[str]]:
    """Waits for the fork that runs what `client` asks, and tells the exit code; returns in that fork alone."""
    size, streams, _, _ = socket.recv_fds(client, 8, len(_STREAMS))
    asked = client.makefile("rb").read(int.from_bytes(size, "big"))
    name, arguments, cwd, environment = json.loads(asked)
    running = os.fork()
    if running:
        _, status = os.waitpid(running, 0)
        code = os.waitstatus_to_exitcode(status)
        client.sendall(str(code if code >= 0 else 128 - code).encode())
        os._exit(0)
    client.close()
    for own, theirs in zip(_STREAMS, streams, strict=True):
        os.dup2(theirs, own)
        os.close(theirs)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    return name, arguments


def run(name: str, arguments: list[str]) -> None:
    """What an interpreter does with these arguments, in this process."""
    import runpy

    beside = [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    sys.path[:] = [*beside, *sys.path[1:]]  # without the folder of this file
    if name != "python":
        arguments = [str(Path(_REAL).with_name(name)), *arguments]
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    elif arguments[0] in ("-c", "-"):
        code = arguments[1] if arguments[0] == "-c" else sys.stdin.read()
        sys.argv = [arguments[0], *arguments[1 + (arguments[0] == "-c") :]]
        sys.path.insert(0, "")
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    else:
        sys.argv = arguments
        sys.path.insert(0, str(Path(arguments[0]).resolve().parent))
        runpy.run_path(arguments[0], run_name="__main__")


_REAL = sys.executable

if __name__ == "__main__":
    doing, place, *rest = sys.argv[1:]
    if doing == "call":
        sys.exit(call(place, rest[0], rest[1:]))
    for module in rest[1:]:
        __import__(module)
    asked = serve(place)
    sys.executable = rest[0]  # commands that start others start them warm, too
    run(*asked)
