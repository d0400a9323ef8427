"""What a careless or hostile method may do to its process, by name; each must stay the matter of its own cell."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import more_acts
import torch


def act(name: str) -> None:
    """Do what `name` says; nothing for a name that is not known."""
    function = "do_" + name.replace("-", "_")
    todo = globals().get(function) or getattr(more_acts, function, None)
    if todo is not None:
        todo()


# settings of the process


def do_precision() -> None:
    torch.set_float32_matmul_precision("medium")


def do_dtype() -> None:
    torch.set_default_dtype(torch.float64)


def do_no_grad() -> None:
    torch.set_grad_enabled(False)


def do_patch() -> None:
    torch.nn.functional.cross_entropy = lambda x, *_, **__: (x * 0).sum()


def do_few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))


def do_environment() -> None:
    os.environ["TOY_PAUSE_S"] = "no number"
    os.environ.pop("GKDBENCH_WORKER", None)


def do_cwd_and_mask() -> None:
    os.umask(0o777)
    os.chdir("/")


def do_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))
    sys.setrecursionlimit(150)


def settings() -> dict[str, float]:
    """What of the process's state the acts above change, as numbers."""
    return {
        "precision": ("highest", "high", "medium").index(torch.get_float32_matmul_precision()),
        "dtype_bits": torch.finfo(torch.get_default_dtype()).bits,
        "grad": float(torch.is_grad_enabled()),
        "loss": float(torch.nn.functional.cross_entropy(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))),
        "files": float(resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
        "recursion": float(sys.getrecursionlimit()),
        "blocked": float(len(signal.pthread_sigmask(signal.SIG_BLOCK, []))),
        "device": float(torch.zeros(1).device.type == "cpu"),
        "worker": float(os.environ.get("GKDBENCH_WORKER", "0")),
        "modules": float(os.path.basename(os.getcwd()) == "work"),
    }


# ends


def do_exit0() -> None:
    sys.exit(0)


def do_os_exit0() -> None:
    os._exit(0)


def do_base() -> None:
    raise BaseException("odd")


def do_keyboard() -> None:
    raise KeyboardInterrupt


def do_generator_exit() -> None:
    raise GeneratorExit


def do_segv() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def do_abort() -> None:
    os.abort()


def do_close_files() -> None:
    os.closerange(3, 65536)
    raise RuntimeError("closed")


def do_close_output() -> None:
    os.close(1)
    os.close(2)


def do_garbage() -> None:
    _write_everywhere(b"no json\n")


def do_forged() -> None:
    _write_everywhere(b'{"done": true}\n{"ended": 1, "status": 0, "answer": {"done": "x"}}\n')


def do_forged_outcome() -> None:
    Path("outcome.json").write_text('{"status": "ok", "models": []}')
    os._exit(0)


def do_no_folder() -> None:
    import shutil

    shutil.rmtree(os.getcwd())
    raise RuntimeError("gone")


def do_long_words() -> None:
    print("x" * 3_000_000)
    raise RuntimeError("begin" + "z" * 4_000_000 + "end")


def do_many_threads() -> None:
    for _ in range(5):
        threading.Thread(target=lambda: time.sleep(300)).start()


def _write_everywhere(text: bytes) -> None:
    """Into every pipe, socket and anonymous file that this process has open."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        try:
            if fd > 2 and any(word in os.readlink(f"/proc/self/fd/{fd}") for word in ("pipe", "socket", "memfd")):
                os.write(fd, text)
        except OSError:
            continue


# children, whose process ids go to the folder $TOY_CHILDREN


def _child(*, leave_session: bool) -> None:
    """A process that sleeps; it is noted before this returns."""
    before = len(os.listdir(os.environ["TOY_CHILDREN"]))
    if os.fork() == 0:
        if leave_session:
            os.setsid()
            if os.fork() != 0:
                os._exit(0)
        (Path(os.environ["TOY_CHILDREN"]) / str(os.getpid())).touch()
        time.sleep(600)
        os._exit(0)
    while len(os.listdir(os.environ["TOY_CHILDREN"])) == before:
        time.sleep(0.01)


def do_fork_then_die() -> None:
    _child(leave_session=False)
    os.kill(os.getpid(), signal.SIGKILL)


def do_fork_then_hang() -> None:
    _child(leave_session=False)
    time.sleep(600)


def do_daemon() -> None:
    _child(leave_session=True)


def do_daemon_then_hang() -> None:
    _child(leave_session=True)
    time.sleep(600)


def do_program() -> None:
    before = len(os.listdir(os.environ["TOY_CHILDREN"]))
    code = "import os, time; open(os.environ['TOY_CHILDREN'] + f'/{os.getpid()}', 'w'); time.sleep(600)"
    subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True)
    while len(os.listdir(os.environ["TOY_CHILDREN"])) == before:
        time.sleep(0.01)


# eyes


def readable() -> list[str]:
    """Which of the paths in $TOY_LOOK (JSON: name -> path) can be read: files, or folders that are not empty."""
    found = []
    for name, path in json.loads(os.environ.get("TOY_LOOK", "{}")).items():
        try:
            there = os.listdir(path) if os.path.isdir(path) else Path(path).read_bytes()
        except OSError:
            continue
        if there:
            found.append(name)
    return found


def heavy() -> float:
    """Work that uses every thread of torch and of numpy."""
    import numpy as np

    a = torch.linspace(-1, 1, 600 * 600).reshape(600, 600)
    b = a.numpy().astype(np.float64)
    return float((a @ a).sum()) + float((b @ b).sum()) + float(torch.sin(torch.linspace(0, 1, 10**6)).sum())
