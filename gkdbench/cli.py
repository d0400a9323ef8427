"""The command line: parses, calls, prints. ``gkdbench VERB --help`` explains each verb.

Exit codes: 0 done; 1 something failed or is wrong; 2 bad input; 3 not checked or not there; 130 interrupted.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib import import_module

from gkdbench import __version__
from gkdbench.errors import UserError
from gkdbench.options import COUNT, JOBS, SEED, THREADS, folder, seconds, whole
from gkdbench.printable import printable

Verb = Callable[[argparse.Namespace], int]
FAMILIES = ("gnn_to_mlp", "baselines", "graph_tasks", "mixture", "mutual", "structure")
"""Folders of `gkdbench.methods`; a new method begins in the first, where the template belongs."""
MAKES_DATA = ("datasets:data_fetch", "doctor:doctor")
"""Verbs whose ``--data`` may not exist yet: one makes the folder, one reports it."""
LISTS = ("methods", "recipes", "datasets", "splits", "backbones", "metrics", "suites")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    if sys.platform == "win32":
        print("gkdbench does not support Windows; use Linux, or WSL 2", file=sys.stderr)
        return 2
    top = parser()
    args, rest = top.parse_known_args(argv)
    # argparse takes words of one stretch only; those after a later option belong to them all the same.
    words = [word for word in rest if not word.startswith("-") and hasattr(args, "words")]
    if len(words) < len(rest):
        args.parser.error(_unrecognized([word for word in rest if word not in words], args.parser))
    if words:
        args.words += words
    args.command = shlex.join(["gkdbench", *(sys.argv[1:] if argv is None else argv)])
    module, _, function = args.verb.partition(":")
    try:
        data = getattr(args, "data", None)
        if data is not None and args.verb not in MAKES_DATA and not os.path.isdir(data):
            print(f"gkdbench: --data: expected a folder of raw files, got {data!r}, no folder", file=sys.stderr)
            return 3
        if data is None and hasattr(args, "data") and args.verb not in MAKES_DATA:
            from gkdbench.verbs.datasets import warn_of_no_folder

            warn_of_no_folder()
        verb: Verb = getattr(import_module(f"gkdbench.verbs.{module}"), function)
        return verb(args)
    except UserError as error:
        print(printable(f"gkdbench: {error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("gkdbench: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output went away (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _unrecognized(words: Sequence[str], of: argparse.ArgumentParser) -> str:
    """What to say of `words` that the parser of a verb does not take: the nearest of its options."""
    told = []
    for word in words:
        near = difflib.get_close_matches(word.partition("=")[0], of._option_string_actions, n=1)
        told.append(f"{word} (did you mean {near[0]}?)" if near else word)
    return f"unrecognized arguments: {' '.join(told)}"


ONLY_RECORDS = "keys: method, dataset, split, setting, variant, backbone, recipe, key"
ALLOW_DIRTY = "also write rows of code that differs from its commit into a folder that git tracks"


def parser() -> argparse.ArgumentParser:
    """All verbs with their arguments. Imports nothing heavy: ``--help`` is fast."""
    top = argparse.ArgumentParser(
        prog="gkdbench", description="Graph knowledge distillation under one leak-proof protocol."
    )
    top.add_argument("--version", action="version", version=f"gkdbench {__version__}")
    verbs = top.add_subparsers(metavar="VERB", required=True)

    def add(name: str, verb: str, text: str, *, json: bool = True) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.set_defaults(verb=verb, parser=sub)
        if json:
            sub.add_argument("--json", action="store_true", help="print JSON")
        return sub

    sub = add("list", "listing:list_names", "what is registered: " + ", ".join(LISTS))
    sub.add_argument("what", choices=LISTS, nargs="?", default="methods", help="which list (default: methods)")
    sub.add_argument("--data", type=folder, help="of datasets: folder of raw files (default: $GKDBENCH_DATA)")
    sub = add("show", "showing:show_one", "one method, recipe, data set, split, backbone, metric or suite")
    sub.add_argument("name", help="any name that `gkdbench list` prints")
    sub.add_argument("--dataset", help="of a method: the settings for this data set")
    sub.add_argument("--split", help="of a method: the settings for this split id")
    sub.add_argument("--recipe", help="of a method: a published configuration")
    sub.add_argument("--data", type=folder, help="of a data set: folder of raw files (default: $GKDBENCH_DATA)")
    sub.add_argument("--figure", metavar="FILE", help="write the method's figure, where it declares one, as SVG")

    sub = add("plan", "running:plan", "what a run would do: cells, cached, hours, bytes")
    _run_arguments(sub)
    sub.add_argument("--cells", action="store_true", help="print every cell to run; with --json, every cell")
    sub.add_argument(
        "--trial",
        action="store_true",
        help="time a few epochs of every configuration of which nothing was measured on its data set",
    )
    sub = add("run", "running:run", "run what is missing of a suite, then print its board")
    _run_arguments(sub)
    sub.add_argument(
        "--debug",
        metavar="CELL",
        help="train one cell (as in --only) in this process, with prints and breakpoint(); nothing of it is stored",
    )
    sub.add_argument("--allow-dirty", action="store_true", help=ALLOW_DIRTY)
    sub.add_argument(
        "--keep-models",
        action="store_true",
        help="keep selected weights: OUT/models/METHOD-KEY/INDEX-SEED/MODEL.npz and .json, for gkdbench.load_model",
    )
    sub = add("collect", "running:collect", "merge finished cells into records")
    sub.add_argument(
        "out", type=folder, nargs="?", default="gkdbench-runs", help="folder of records (default: gkdbench-runs)"
    )
    sub.add_argument("--allow-dirty", action="store_true", help=ALLOW_DIRTY)
    sub = add("verify", "running:verify", "compute every score again from side-cars and data")
    sub.add_argument(
        "path", nargs="?", default="gkdbench-runs", help="a record or a folder of records (default: gkdbench-runs)"
    )
    sub.add_argument("--data", type=folder, help="folder of raw files (default: $GKDBENCH_DATA)")
    sub.add_argument("--rerun", type=COUNT, metavar="N", help="then train N rows again, drawn at random, and compare")
    sub.add_argument("--seed", type=SEED, help="of that draw (default: drawn, and printed)")
    sub.add_argument("--cheapest", action="store_true", help="draw from the methods that train fastest first")
    sub.add_argument("--jobs", type=JOBS, help="cells at a time (default: one per core)")

    sub = add("report", "reporting:report", "the board of records; with --json, its rows")
    sub.add_argument("paths", nargs="*", default=["gkdbench-runs"], help="records or folders (default: gkdbench-runs)")
    sub.add_argument("--only", metavar="KEY=VALUE,...", help=f"some rows: method=glnn|kd,dataset=cora; {ONLY_RECORDS}")
    sub.add_argument("--records", action="store_true", help="of each row its record and the command that repeats it")
    sub.add_argument("--suite", help="list what is missing of this suite")
    sub.add_argument("--html", metavar="FILE", help="write one self-contained page")
    sub.add_argument("--markdown", metavar="FILE", help="write Markdown")
    sub.add_argument("--csv", metavar="FILE", help="write CSV")
    sub.add_argument("--readme", metavar="FILE", nargs="+", default=[], help="fill the tables of Markdown files")
    sub.add_argument("--claims", metavar="FOLDER", help="check the claims that its TOML files state, write the pages")
    sub.add_argument("--published", metavar="TOML", help="count the published numbers reproduced, write the page")
    sub.add_argument("--ties", metavar="FILE", help="fill a page's table of first against later of equal scores")
    sub.add_argument("--pareto", metavar="FOLDER", help="write pictures of score against latency and training (SVG)")
    sub.add_argument("--title", default="gkdbench board", help="of the page that --html writes")
    sub = add("compare", "reporting:compare", "two groups of records, paired by split index and seed")
    sub.add_argument("first", help="record or folder of records A")
    sub.add_argument("second", help="record or folder of records B")
    sub.add_argument("--first-only", metavar="KEY=VALUE,...", help=f"some records of A: method=glnn; {ONLY_RECORDS}")
    sub.add_argument("--second-only", metavar="KEY=VALUE,...", help="some records of B")
    sub.add_argument(
        "--measure",
        choices=("latency", "inference", "training"),
        help="in place of scores: how much of B's time A takes, measured now, in turns",
    )
    sub.add_argument("--data", type=folder, help="folder of raw files for --measure (default: $GKDBENCH_DATA)")

    _data_verbs(verbs)
    _profile_verbs(verbs)
    sub = add("new", "scaffold:new", "write a new method (file, settings, test), or data set", json=False)
    sub.add_argument("kind", choices=("method", "dataset"), help="a data set goes into a package")
    sub.add_argument("name", help="lower case, words joined by underscores")
    sub.add_argument("--family", choices=FAMILIES, default=FAMILIES[0], help="folder of gkdbench/methods")
    sub.add_argument("--into", type=folder, help="folder of a package of your own to begin (default: this checkout)")
    sub = add("doctor", "doctor:doctor", "what this machine has, and what to fix")
    sub.add_argument("--data", type=folder, help="folder of raw files (default: $GKDBENCH_DATA)")
    sub.add_argument("--out", type=folder, default="gkdbench-runs", help="folder that runs would write to")
    return top


def _run_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "words",
        metavar="SUITE | KEY=VALUE",
        nargs="*",
        help="smoke, a published name (node-small@1), or a TOML file; with --method, hyper-parameters such as lr=0.01",
    )
    sub.add_argument(
        "--method",
        action="append",
        metavar="NAME",
        help="in place of a suite, may be repeated; 'NAME KEY=VALUE ...' in quotes for a method's own hyper-parameters",
    )
    sub.add_argument("--dataset", help="data set of --method")
    sub.add_argument("--split", help="split id of --method (default: the data set's first)")
    sub.add_argument("--seeds", help="seeds of --method: 0:3 (default), 4, or 0,2,5")
    sub.add_argument("--out", type=folder, default="gkdbench-runs", help="folder of records (default: gkdbench-runs)")
    sub.add_argument("--jobs", type=JOBS, help="worker processes (default: cores / threads)")
    sub.add_argument("--threads", type=THREADS, help="threads per worker (default: the suite's)")
    sub.add_argument("--device", default="auto", help="auto, cpu or cuda:i")
    sub.add_argument("--data", type=folder, help="folder of raw files (default: $GKDBENCH_DATA)")
    sub.add_argument("--only", metavar="KEY=VALUE,...", help="some cells: method=glnn,dataset=cora,seed=3")
    sub.add_argument("--tier", choices=("core", "full"), help="core leaves out what the suite marks full")
    sub.add_argument("--retry", action="store_true", help="run failed cells again")
    sub.add_argument("--retry-noisy", action="store_true", help="suites that measure cost: take noisy ones again")
    sub.add_argument(
        "--rerun",
        action="store_true",
        help="run cells again although they have rows, and replace the rows; a teacher that the suite does not list "
        "only where --only names its method or key",
    )
    sub.add_argument("--max-cells", type=whole(0, 1_000_000_000), help="stop after so many cells")


def _data_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    data = verbs.add_parser("data", help="data sets: list, check, fetch", description="data sets: list, check, fetch")
    actions = data.add_subparsers(metavar="ACTION", required=True)
    for name, text in (
        ("list", "every data set and whether its files are available"),
        ("check", "verify files by sha256"),
        ("fetch", "download one set"),
    ):
        sub = actions.add_parser(name, help=text, description=text)
        sub.set_defaults(verb=f"datasets:data_{name}", parser=sub)
        sub.add_argument("--data", type=folder, help="folder of raw files (default: $GKDBENCH_DATA)")
        sub.add_argument("--json", action="store_true", help="print JSON")
        if name == "list":
            sub.add_argument("names", nargs="*", help="data sets (default: all)")
        if name == "check":
            sub.add_argument("names", nargs="*", help="data sets (default: all available)")
            sub.add_argument("--decode", action="store_true", help="also read each set and check its content")
        if name == "fetch":
            sub.add_argument("name", help="a data set with raw files (`gkdbench data list`)")
            sub.add_argument("--print", action="store_true", help="only print source, files, sha256 and the command")


def _profile_verbs(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "speed: the kernels compared with competing libraries, and what bounds a method"
    profile = verbs.add_parser("profile", help=text, description=text)
    actions = profile.add_subparsers(metavar="ACTION", required=True)
    text = "operators x shapes x competitors, each ratio behind a gate of values and gradients"
    sub = actions.add_parser("kernels", help=text, description=text)
    sub.set_defaults(verb="profile.kernels:kernels", parser=sub)
    what = sub.add_mutually_exclusive_group()
    what.add_argument("--bars", action="store_true", help="the promised ratios on a CPU, met or not")
    what.add_argument("--steps", action="store_true", help="training steps of GCN and GAT compared with PyG's")
    what.add_argument("--growth", action="store_true", help="time and memory over three decades of edges")
    what.add_argument("--list", action="store_true", help="print the names of the cases")
    sub.add_argument("--case", metavar="PATTERN", help="cases whose names contain or match this")
    _bench_arguments(sub)
    text = "steps and inference of whole methods compared with the structure of the official code"
    sub = actions.add_parser("methods", help=text, description=text)
    sub.set_defaults(verb="profile.methods:methods", parser=sub)
    sub.add_argument("--latency", action="store_true", help="inference of RbM against k; goes on with a --json file")
    _bench_arguments(sub)
    for name, text in (
        (
            "training",
            "the operators of a method's epochs: time, bytes, multiply-adds, against the machine's peaks",
        ),
        ("inference", "the operators of a method's answers: all items, batches of 1,024, one query"),
    ):
        sub = actions.add_parser(name, help=text, description=text)
        sub.set_defaults(verb=f"profile.whole_method:{name}", parser=sub)
        _method_profile_arguments(sub)
    text = "fill the tables of a Markdown file from stored results, and draw the plots next to it"
    sub = actions.add_parser("docs", help=text, description=text)
    sub.set_defaults(verb="profile.docs:docs", parser=sub)
    sub.add_argument("paths", nargs="*", default=["results/kernels"], help="JSON files or folders of them")
    sub.add_argument("--into", default="docs/kernels.md", help="the Markdown file (default: docs/kernels.md)")


def _method_profile_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("method", help="a registered method (`gkdbench list methods`)")
    sub.add_argument("words", metavar="KEY=VALUE", nargs="*", help="its hyper-parameters, such as lr=0.01")
    sub.add_argument("--dataset", help="default: a built-in set, digits-knn or digits-grid")
    sub.add_argument("--split", help="split id (default: the data set's first)")
    sub.add_argument("--epochs", type=COUNT, default=3, help="profiled; for inference, trained before (default: 3)")
    sub.add_argument(
        "--out", type=folder, default="gkdbench-profiles", help="of page and traces (default: gkdbench-profiles)"
    )
    sub.add_argument("--quick", action="store_true", help="tiny arrays for the machine's peaks: rooflines mean nothing")
    sub.add_argument("--device", default="auto", help="auto, cpu or cuda:i")
    sub.add_argument("--threads", type=THREADS, default=1, help="of the CPU, as cells have them (default: 1)")
    sub.add_argument("--data", type=folder, help="folder of raw files (default: $GKDBENCH_DATA)")
    sub.add_argument("--json", action="store_true", help="print JSON")


def _bench_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--quick", action="store_true", help="tiny inputs: shows that all works, its numbers mean nothing")
    sub.add_argument("--device", default="auto", help="auto, cpu or cuda:i")
    sub.add_argument("--threads", type=THREADS, default=2, help="of the CPU (default: 2)")
    sub.add_argument("--caches", choices=("warm", "cold"), default="warm", help="before each call (default: warm)")
    sub.add_argument("--rounds", type=COUNT, default=15, help="samples of each candidate (default: 15)")
    sub.add_argument("--budget", type=seconds, default=60.0, help="seconds a case, five rounds at least (default: 60)")
    sub.add_argument("--data", type=folder, help="folder of raw files (default: $GKDBENCH_DATA)")
    sub.add_argument("--json", metavar="FILE", help="write everything, samples and provenance included")


if __name__ == "__main__":
    sys.exit(main())
