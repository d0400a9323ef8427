"""``gkdbench profile kernels`` and ``make gpu`` as a shell sees them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import Done, gkdbench

from gkdbench.cli import parser
from gkdbench.verbs.profile.bench import wanted_environment, words

ROOT = Path(__file__).resolve().parents[2]
Inside = Callable[..., Done]


def test_one_case_is_measured_and_stored(inside: Inside, tmp_path: Path) -> None:
    line = "profile kernels --quick --device cpu --threads 1 --case readout-sum*/fwd --json out/x.json"
    done = gkdbench(*line.split(), cwd=tmp_path)
    assert done.code == 0, done.err
    assert "gate green" in done.out
    told = json.loads((tmp_path / "out" / "x.json").read_text())
    assert told["quick"]
    assert told["threads"] == 1
    assert told["clock_error"] <= 0.05
    assert told["provenance"]["allocator"] == {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "1000000000000"}
    (result,) = told["results"]
    assert result["green"]
    assert {row["status"] for row in result["rows"]} <= {"ok", "missing", "left out"}
    refused = inside("profile", "docs", "out", "--into", "out/x.json")
    assert refused.code == 2
    assert "--quick" in refused.err


def test_names_and_bad_input(inside: Inside) -> None:
    done = inside("profile", "kernels", "--list", "--quick", "--case", "gat*")
    assert done.out.split() == [f"gat_aggregate/power-law-tiny/heads=2,width=8/float32/{d}" for d in ("fwd", "fwd+bwd")]
    bad = inside("profile", "kernels", "--list", "--case", "nothing")
    assert bad.code == 2
    assert "no case matches 'nothing'" in bad.err


@pytest.mark.parametrize("line", ["--quick --bars --threads 1", "--case spmm --json a.json --rounds 3", "--steps"])
def test_the_measuring_process_gets_the_same_arguments(line: str) -> None:
    args = parser().parse_args(["profile", "kernels", *line.split()])
    again = parser().parse_args(["profile", "kernels", *words(args)])
    assert {**vars(again), "parser": None} == {**vars(args), "parser": None}
    assert wanted_environment(args.threads)["OMP_NUM_THREADS"] == str(args.threads)


def test_methods_are_compared_and_stored(tmp_path: Path) -> None:
    done = gkdbench(
        "profile", "methods", *["--quick", "--device", "cpu", "--threads", "1", "--json", "x.json"], cwd=tmp_path
    )
    assert done.code in (0, 1), done.err  # verdicts on tiny inputs mean nothing
    told = json.loads((tmp_path / "x.json").read_text())
    assert len(told["methods"]) > 10
    assert all(one["ratio"] is not None for one in told["methods"])


def test_latency_goes_on_where_it_was_cut_off(inside: Inside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = ["profile", "methods", "--latency", "--quick", "--device", "cpu", "--threads", "1", "--json", "x.json"]
    first = gkdbench(*line, cwd=tmp_path)
    assert first.code in (0, 1), first.err
    file = tmp_path / "x.json"
    told = json.loads(file.read_text())
    assert [len(curve["points"]) for curve in told["latency"]] == [4, 4, 7, 7]
    lost = told["latency"].pop(0)
    told["latency"][0]["points"][0]["error"] = 0.125  # a mark: this one is not measured again
    file.write_text(json.dumps(told))
    for name, value in wanted_environment(1).items():  # with these, the command measures in the process that it is in
        monkeypatch.setenv(name, value)
    again = inside(*line)
    assert "x.json: continues" in again.out
    curves = json.loads(file.read_text())["latency"]
    assert [len(curve["points"]) for curve in curves] == [4, 7, 7, 4]
    assert curves[0]["points"][0]["error"] == 0.125
    assert (curves[-1]["data"], curves[-1]["rows"]) == (lost["data"], lost["rows"])
    file.write_text(json.dumps({"format": 1, "methods": []}))
    refused = inside(*line)
    assert (refused.code, "got something else" in refused.err) == (2, True)


def test_make_gpu_has_arguments_that_parse_and_says_what_is_missing(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "tests" / "gpu_bench.py"), "--out", str(tmp_path)]
    listed = subprocess.run([*script, "--list"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert "-m pytest" in listed[0]
    assert len(listed) == 5
    for line in listed[1:]:
        _, marker, rest = line.partition("gkdbench.cli ")
        assert marker
        args = parser().parse_args(rest.split())
        assert args.device == "cuda:0"
        assert not args.quick
    made = subprocess.run(["make", "--dry-run", "gpu"], cwd=ROOT, capture_output=True, text=True)
    assert "tests/gpu_bench.py --out results/kernels" in made.stdout


def test_make_gpu_stops_without_a_gpu(tmp_path: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU: this would run the whole bench")
    script = [sys.executable, str(ROOT / "tests" / "gpu_bench.py"), "--out", str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 3
    assert "sees no CUDA device" in done.stderr
