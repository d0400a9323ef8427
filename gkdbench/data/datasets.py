"""Data sets by name: the registry, and `load_task` from raw files, built-in generators or third parties."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gkdbench.data import builtin, catalogue, rawfiles
from gkdbench.data.catalogue import DatasetInfo
from gkdbench.data.fetch import fetch_instructions
from gkdbench.data.rawfiles import CorruptData, MissingData
from gkdbench.errors import UnknownName, UserError
from gkdbench.printable import encodable, said
from gkdbench.registry import Entry, Registry

if TYPE_CHECKING:
    from gkdbench.data.task import Task

Loader = Callable[[], "Task"]
"""What a registered data set is: called without arguments, returns a Task."""

__all__ = [
    "DATASETS",
    "CorruptData",
    "MissingData",
    "available",
    "dataset_info",
    "load_task",
]


def _entries() -> Iterator[Entry]:
    for name in catalogue.names():
        yield Entry(name, f"{__name__}:{name}", "gkdbench (catalogue.json)")
    for name, info in builtin.BUILTIN.items():
        yield Entry(name, info.source, "gkdbench (builtin.py)")


def _check(name: str, loaded: Any) -> Loader:
    if not callable(loaded):
        raise UserError(
            f"dataset {name!r}: expected a function without arguments -> Task, got a {type(loaded).__name__}"
        )
    found: Loader = loaded
    return found


def __getattr__(name: str) -> Loader:
    """The loader of a catalogued set: what its registry entry points to."""
    if name not in catalogue.names():
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return lambda: _from_files(catalogue.info(name), None)


DATASETS: Registry[Loader] = Registry("dataset", "gkdbench.datasets", _check, _entries)


def dataset_info(name: str) -> DatasetInfo:
    """Facts of a set, canonical name or alias, without reading it (and without torch).

    Raises:
        UnknownName: not in the catalogue, not built in, not registered by a package.
    """
    canon = catalogue.canonical(name)
    if canon in catalogue.names():
        return catalogue.info(canon)
    if (found := builtin.info(canon)) is not None:
        return found
    entry = DATASETS.entries().get(name) or DATASETS.entries().get(canon)
    if entry is None:
        known = [*DATASETS.names(), *catalogue.aliases()]
        hint = "`gkdbench list datasets` prints all; a Task of a script is known in that script only, by run(task=...)"
        raise UnknownName("dataset", name, known, hint)
    return DatasetInfo(
        entry.name,
        kind="",
        reader="",
        source=entry.owner,
        licence="",
        status="third party",
    )


def available(name: str, *, data: Path | str | None = None) -> bool:
    """Whether `load_task` finds what it needs (raw files present; not yet verified)."""
    info = dataset_info(name)
    return not rawfiles.missing_files(info, rawfiles.data_folder(data))


def load_task(name: str, *, data: Path | str | None = None) -> Task:
    """The data set called `name`, with its labels.

    Raw files are looked for under `data`, else ``$GKDBENCH_DATA``; verified by sha256, decoded once into
    ``$XDG_CACHE_HOME/gkdbench/datasets``, memory-mapped afterwards.

    Args:
        name: canonical id, an alias, or ``powerlaw:n=100000,d=16`` for a built-in one with sizes.

    Raises:
        UnknownName: no such set.
        MissingData: files that are not there, and how to get them.
        CorruptData: a damaged file, or content of another hash than the registered one.
        UserError: inside a worker, where no labels may be read.
    """
    rawfiles.refuse_in_worker(f"data set {name!r}")
    info = dataset_info(name)
    if info.files:
        return _from_files(info, data)
    if (built := _built_in(catalogue.canonical(name))) is not None:
        return built
    return _third_party(info.name)


@contextmanager
def known_as(task: Task) -> Iterator[str]:
    """The name of `task`, under which `load_task` finds it in this process for as long as the context lasts.

    Raises:
        UserError: another data set has the name.
    """
    with DATASETS.lent(task.name, lambda: task, "a Task of this process"):
        yield task.name


@lru_cache(maxsize=4)
def _built_in(name: str) -> Task | None:
    """A generated set, made once: a run needs it for the plan and again for every split."""
    build = builtin.loader(name)
    return None if build is None else build()


def _from_files(info: DatasetInfo, data: Path | str | None) -> Task:
    rawfiles.refuse_in_worker(info.name)
    raw = rawfiles.locate(info, data, fetch_instructions(info.name))
    from gkdbench.data import cache

    digests = {name: raw.sha256[name] or _stamp(path) for name, path in raw.at.items()}
    folder = cache.entry_folder(info, digests)
    if not (folder / "meta.json").is_file():
        decoded = _decode(info, raw, data)
        _check_content(info, decoded, raw)
        cache.store(decoded, folder)
    task = cache.load(folder)
    _check_content(info, task, raw)
    return task


def _stamp(path: Path) -> str:
    status = path.stat()
    return f"{status.st_size}-{status.st_mtime_ns}"


def _decode(info: DatasetInfo, raw: rawfiles.RawFiles, data: Path | str | None) -> Task:
    """Read the raw files; those of a large set, not hashed at every load, are hashed here."""
    folder = rawfiles.data_folder(data)
    for file in info.files:
        if folder is not None and raw.sha256.get(file.path) == "":
            rawfiles.verify(folder, file)
    try:
        task: Task = import_module(f"gkdbench.data.readers.{info.reader}").read(info, raw)
    except CorruptData as error:
        raise CorruptData(f"{info.name}: {error}{_suspects(info, raw)}") from error
    except UserError:
        raise
    except MemoryError:
        raise CorruptData(
            f"{info.name}: expected a set that fits into memory, got one that does not{_suspects(info, raw)}; fetch it "
            "again, or take a machine with more"
        ) from None
    except Exception as error:  # damaged content raises almost anything
        raise CorruptData(
            f"{info.name} cannot be decoded ({type(error).__name__}: {error}){_suspects(info, raw)}; fetch it again"
        ) from error
    return task


def _check_content(info: DatasetInfo, task: Task, raw: rawfiles.RawFiles) -> None:
    if not info.content_hash:  # nobody has looked at what these files hold
        from gkdbench.data.consistency import check_task

        try:
            check_task(task)
        except UserError as error:
            raise CorruptData(f"{info.name}: {error}{_suspects(info, raw)}; fetch it again") from None
    if info.content_hash and task.content_hash != info.content_hash:
        raise CorruptData(
            f"{info.name}: edges, features and labels: got hash {task.content_hash}, registered is {info.content_hash}"
            f"{_suspects(info, raw)}; runs on other data are refused: fetch the files again, or register your own set "
            f"under another name"
        )


def _suspects(info: DatasetInfo, raw: rawfiles.RawFiles) -> str:
    """The files whose digest is not a registered one, for a message."""
    found = [file.path for file in info.files if file.path in raw.at and raw.sha256[file.path] not in file.sha256]
    return f"; files of an unregistered sha256: {', '.join(found)}" if found else ""


def _third_party(name: str) -> Task:
    from gkdbench.data.consistency import check_contents, check_task
    from gkdbench.data.task import Task

    owner = DATASETS.entry(name).owner
    load = DATASETS.get(name)
    try:
        task = load()
        if not isinstance(task, Task):
            raise UserError(f"expected a Task (see Task.from_arrays), got a {type(task).__name__}")
        check_contents(task)
        check_task(task)
    except UserError as error:
        raise UserError(f"dataset {name!r} of {owner}: {encodable(str(error))}") from None
    except (Exception, SystemExit) as error:  # the code of others may raise anything
        raise UserError(
            f"dataset {name!r}: expected a Task, got {said(error)[:500]} from the code of {owner}; mend it, or leave "
            "the set out"
        ) from error
    return task
