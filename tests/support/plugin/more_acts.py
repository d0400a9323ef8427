"""Further acts of careless or hostile methods, by name: see `careless_acts.act`."""

from __future__ import annotations

import atexit
import builtins
import faulthandler
import gc
import json
import locale
import os
import random
import resource
import shutil
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import torch

KEPT: list[object] = []


def do_default_device() -> None:
    torch.set_default_device("meta")


def do_deterministic() -> None:
    torch.use_deterministic_algorithms(True)


def do_anomaly() -> None:
    torch.autograd.set_detect_anomaly(True)


def do_flush_denormal() -> None:
    torch.set_flush_denormal(True)


def do_no_mkldnn() -> None:
    torch.backends.mkldnn.enabled = False


def do_two_threads() -> None:
    torch.set_num_threads(2)


def do_seeds() -> None:
    torch.manual_seed(123)
    np.random.seed(1)
    random.seed(2)


def do_warnings_are_errors() -> None:
    warnings.simplefilter("error")


def do_numpy_raises() -> None:
    np.seterr(all="raise")


def do_no_collector() -> None:
    gc.disable()


def do_no_print() -> None:
    sys.excepthook = None  # type: ignore[assignment]
    builtins.print = None  # type: ignore[assignment]


def do_no_import_path() -> None:
    sys.path.clear()
    sys.modules.pop("gkdbench.metrics", None)


def do_patch_json() -> None:
    json.dumps = lambda *_, **__: "{}"  # type: ignore[assignment]


def do_patch_numpy() -> None:
    np.save = lambda *_, **__: None


def do_patch_backward() -> None:
    torch.Tensor.backward = lambda *_, **__: None  # type: ignore[method-assign]


def do_patch_exit() -> None:
    os._exit = lambda *_: None  # type: ignore[assignment]


def do_patch_time() -> None:
    time.monotonic = lambda: 0.0


def do_no_open() -> None:
    builtins.open = None  # type: ignore[assignment]


def do_empty_environment() -> None:
    os.environ.clear()


def do_locale() -> None:
    locale.setlocale(locale.LC_ALL, "C")


def do_no_faulthandler() -> None:
    faulthandler.disable()


def do_exit_handler() -> None:
    atexit.register(lambda: time.sleep(1000))


def do_alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    time.sleep(0.1)


def do_ignore_all_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


def do_no_stdin() -> None:
    os.close(0)
    sys.stdin = None  # type: ignore[assignment]


def do_ask() -> None:
    input("? ")


def do_break() -> None:
    breakpoint()


def do_hang_in_c() -> None:
    import ctypes

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    ctypes.CDLL(None).sleep(100000)


def do_spin() -> None:
    while True:
        pass


def do_busy_thread() -> None:
    def spin() -> None:
        until = time.time() + 60
        while time.time() < until:
            pass

    threading.Thread(target=spin, daemon=False).start()


def do_keep_memory() -> None:
    KEPT.append(np.ones(2**24))


def do_take_memory() -> None:
    KEPT.append(torch.ones(2**33))


def do_recurse() -> None:
    def deeper(n: int) -> int:
        return deeper(n + 1) + 1

    deeper(0)


def do_small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


def do_no_processes() -> None:
    resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))


def do_all_files() -> None:
    try:
        while len(KEPT) < 5000:
            KEPT.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return


def do_print_much() -> None:
    for _ in range(20):
        sys.stdout.write("y" * 1_000_000 + "\n")


def do_write_the_view() -> None:
    for path in Path.cwd().parent.joinpath("view").rglob("*.npy"):
        try:
            with path.open("r+b") as file:
                file.write(b"not numpy")
        except OSError:
            continue


def do_remove_the_view() -> None:
    shutil.rmtree(Path.cwd().parent / "view", ignore_errors=True)


def do_link_out() -> None:
    (Path.cwd() / "outcome.json").symlink_to("/etc/passwd")


def do_children() -> None:
    for _ in range(5):
        if os.fork() == 0:
            time.sleep(1000)
            os._exit(0)


NAMES = sorted(name.removeprefix("do_").replace("_", "-") for name in list(globals()) if name.startswith("do_"))
