"""Plants one fault at a time in a copy of the kernels, and shows that the gate turns red.

``python tests/gkdkernels/mutations.py [NAME ...]`` runs all, or those whose names contain a word. A fault whose source
is not found exactly once, and tests that are red without any fault, are failures of this script too.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "kernels" / "gkdkernels"


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong line.

    Attributes:
        name: begins with the operator, or with the shared part, that it is in.
        file: in `gkdkernels`.
        right, wrong: the source, found once, and what it becomes.
        tests: files of this folder that have to notice; `only` narrows them (pytest's -k).
        often: part of the normal tests, one for each kind of fault; the others are planted by the full ones.
    """

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]
    only: str = ""
    often: bool = False

    @property
    def needs(self) -> str:
        """A module without which nothing can notice; empty: none."""
        return "numba" if "numba" in self.file else ""

    @property
    def possible(self) -> bool:
        """Whether what it needs is installed."""
        return not self.needs or find_spec(self.needs) is not None


SPMM, SPMM_TRITON = ("test_spmm.py",), ("test_spmm_triton.py",)
GAT, GAT_TRITON = ("test_gat.py",), ("test_gat_triton.py",)
MUTUAL, STRUCTURE, EXPERTS = (
    ("test_mutual_kl.py",),
    ("test_edge_log_probs.py", "test_structure_kl.py"),
    ("test_experts.py",),
)

FAULTS = [
    Fault(
        "edge_dot: gradient of the sources in the order of the forward edges",
        "spmm/edge_dot.py",
        "turned = spmm_op.transposed_edge_values(graph, g)",
        "turned = g",
        ("test_edge_values.py",),
        "dot",
    ),
    Fault(
        "edge_softmax cpu: the sum is not taken off",
        "segment/edge_softmax.py",
        "share * (upstream - row_sum(share * upstream, indptr).index_select(0, row))",
        "share * upstream",
        ("test_edge_values.py",),
        "softmax",
    ),
    Fault(
        "graph: edge_order of the sources alone",
        "graph.py",
        "graph._edge_order = plain(order)",
        "graph._edge_order = plain(torch.argsort(src, stable=True))",
        ("test_conversions.py",),
    ),
    Fault(
        "graph: transpose of the wrong ends",
        "graph.py",
        "counts = torch.bincount(self.index.long(), minlength=self.num_src)",
        "counts = torch.bincount(self.row.long(), minlength=self.num_src)[: self.num_src]",
        ("test_graph.py",),
        often=True,
    ),
    Fault(
        "spmm cpu: edges without their weights",
        "spmm/cpu.py",
        "per_sample_weights=None if weight is None else weight.detach().contiguous(),",
        "per_sample_weights=None,",
        SPMM,
    ),
    Fault(
        "spmm cpu: tie of maxima to the next edge",
        "spmm/cpu.py",
        "first = torch.where(graph.degree > 0, graph.indptr[:-1], -1).long()[:, None]",
        "first = torch.where(graph.degree > 0, graph.indptr[1:] - 1, -1).long()[:, None]",
        SPMM,
        only="tie_ and not numba",
        often=True,
    ),
    Fault(
        "spmm numba: tie of maxima to the next edge",
        "spmm/numba.py",
        "wins = (not value <= top) & (top == top)",
        "wins = (not value < top) & (top == top)",
        SPMM,
        "numba",
    ),
    Fault(
        "spmm numba: NaN gives way to a later edge",
        "spmm/numba.py",
        "wins = (not value <= top) & (top == top)",
        "wins = value > top or top != top",
        SPMM,
        "numba",
    ),
    Fault(
        "spmm numba: gradient of the maximum without its weight",
        "spmm/numba.py",
        "g[i, d] * weight[e] if weight.size else g[i, d]",
        "g[i, d]",
        SPMM,
        "numba",
    ),
    Fault(
        "spmm triton: bf16 accumulation",
        "spmm/triton.py",
        "        acc += value\n    total = tl.sum(acc, 0)",
        "        acc = (acc + value).to(tl.bfloat16).to(acc_dtype)\n    total = tl.sum(acc, 0)",
        SPMM_TRITON,
        only="hubs_in_chunks and sum and float32",
        often=True,
    ),
    Fault(
        "spmm triton: missing mask of the last edges",
        "spmm/triton.py",
        "        mask = live[:, None] & (d < WIDTH)[None, :]\n        value = tl.load(x + at,",
        "        mask = (live[:, None] | True) & (d < WIDTH)[None, :]\n        value = tl.load(x + at,",
        ("test_readout_triton.py",),
        only="values and segment_sum",
        often=True,
    ),
    Fault(
        "spmm triton: tie of maxima to another edge",
        "spmm/triton.py",
        "first = tl.min(tl.where(wins, seen, _NONE), 0)",
        "first = tl.max(tl.where(wins, seen, -1), 0)",
        SPMM_TRITON,
    ),
    Fault(
        "spmm triton: a hub's later chunks dropped from the maximum",
        "spmm/triton.py",
        "value = tl.load(partial + slot, mask=d < WIDTH, other=0.0)\n        better",
        "value = tl.load(partial + slot, mask=d < WIDTH, other=0.0) - 100.0\n        better",
        SPMM_TRITON,
        only="hubs_in_chunks and max",
        often=True,
    ),
    Fault(
        "gat_aggregate cpu: gradient over the forward edges",
        "gat/cpu.py",
        "grad_h[head] = bag_sum(transposed.graph, g[head], weight)",
        "grad_h[head] = bag_sum(transposed.graph, g[head], kept[head])",
        GAT,
    ),
    Fault(
        "gat_aggregate cpu: dropout left out of the kept part",
        "gat/cpu.py",
        "out_negative_part[head] = bag_sum(graph, by_head[head], kept[head] * negative_part[head])",
        "out_negative_part[head] = bag_sum(graph, by_head[head], p[head] * negative_part[head])",
        GAT,
    ),
    Fault(
        "gat_aggregate cpu: no shift where exp underflows",
        "gat/cpu.py",
        "_SAFE_RANGE = 60.0",
        "_SAFE_RANGE = 6000.0",
        GAT,
    ),
    Fault(
        "gat_aggregate numba: later blocks of a row's edges dropped",
        "gat/numba.py",
        "for first in range(begin, end, _BLOCK_EDGES):\n                last = min(first + _BLOCK_EDGES, end)\n"
        "                for e in range(first, last):\n                    there, at = el",
        "for first in range(begin, min(end, begin + 1), _BLOCK_EDGES):\n"
        "                last = min(first + _BLOCK_EDGES, end)\n"
        "                for e in range(first, last):\n                    there, at = el",
        GAT,
        "numba",
    ),
    Fault(
        "gat_aggregate numba: the mask of another edge",
        "gat/numba.py",
        "share *= mask[edge[e], k]",
        "share *= mask[e, k]",
        GAT,
        "gradcheck and numba",
    ),
    Fault(
        "gat_aggregate triton: what dropout keeps is not scaled up",
        "gat/triton.py",
        "return tl.where((draw >> 8).to(tl.int32) >= DROPPED, scale, 0.0)",
        "return tl.where((draw >> 8).to(tl.int32) >= DROPPED, 1.0, 0.0)",
        GAT_TRITON,
    ),
    Fault(
        "mutual_kl cpu: teachers and learners swapped",
        "mutual_kl/cpu.py",
        "mix = of_kl * (pairs.sum(0).diag() - pairs).t()",
        "mix = of_kl * (pairs.sum(1).diag() - pairs)",
        MUTUAL,
    ),
    Fault(
        "mutual_kl cpu: the mask is forgotten",
        "mutual_kl/cpu.py",
        "p.masked_fill_(left_out[block], 0.0)",
        "p.mul_(torch.ones_like(kl_mask[block, None]))",
        MUTUAL,
    ),
    Fault(
        "mutual_kl cpu: the diagonal counts",
        "mutual_kl/cpu.py",
        "mix = of_kl * (pairs.sum(0).diag() - pairs).t()",
        "mix = of_kl * (weight.sum(0).diag() - pairs).t()",
        MUTUAL,
    ),
    Fault(
        "mutual_kl numba: teachers and learners swapped",
        "mutual_kl/numba.py",
        "mix = scale[0] * (pairs.sum(0).diag() - pairs).t()",
        "mix = scale[0] * (pairs.sum(1).diag() - pairs)",
        MUTUAL,
        "numba",
    ),
    Fault(
        "mutual_kl numba: the mask is forgotten in the KL",
        "mutual_kl/numba.py",
        "                            _by_lane(p[side, k], live)\n",
        "                            pass\n",
        MUTUAL,
        "numba",
    ),
    Fault(
        "mutual_kl numba: a tile beyond the first starts anew",
        "mutual_kl/numba.py",
        "out[c, r] = z[(first + r) * along + c]",
        "out[c, r] = z[r * along + c]",
        MUTUAL,
        "numba",
    ),
    Fault(
        "mutual_kl numba: the mask is forgotten in the gradient",
        "mutual_kl/numba.py",
        "                    if kl_mask.size:\n                        _by_lane(g, live)\n",
        "",
        MUTUAL,
        "numba",
    ),
    Fault(
        "mutual_kl numba: exp without its last bits",
        "core/numba_tools.py",
        "r = (x - n * _LN2_HIGH) - n * _LN2_LOW",
        "r = x - n * _LN2_HIGH",
        ("test_numba_common.py",),
    ),
    Fault(
        "mutual_kl triton: classes beyond the last",
        "mutual_kl/triton.py",
        "e = tl.where(there, tl.exp(shifted), 0.0)",
        "e = tl.exp(shifted)",
        MUTUAL,
    ),
    Fault(
        "edge_log_probs cpu: the row's sum is not taken off",
        "structure_kl/edge_log_probs.py",
        "torch.sub(g, weight, out=weight).mul_(slope(kernel, measure, width))",
        "weight = g * slope(kernel, measure, width)",
        STRUCTURE,
    ),
    Fault(
        "edge_log_probs cpu: only one direction of a symmetric graph",
        "structure_kl/edge_log_probs.py",
        "out: Tensor = gradient(kind, wide, rows, weight.add_(reverse), measure)",
        "out: Tensor = gradient(kind, wide, rows, weight, measure)",
        STRUCTURE,
    ),
    Fault(
        "structure_kl cpu: cosine without its projection",
        "structure_kl/cpu.py",
        "return across.addcmul_(x, along[:, None], value=-1.0)",
        "return across",
        STRUCTURE,
    ),
    Fault(
        "structure_kl triton: another slope of rbf",
        "structure_kl/triton.py",
        "value = measure * 0.0 - 0.5 / (width * width)",
        "value = measure * 0.0 - 1.0 / (width * width)",
        ("test_structure_kl_triton.py",),
    ),
    Fault(
        "expert_linear cpu: a bias for the wrong rows",
        "experts/cpu.py",
        "per_pair[span] = multiply(taken, weight[expert], None if bias is None else bias[expert])",
        "per_pair[span] = multiply(taken, weight[expert], None if bias is None else bias[0])",
        EXPERTS,
    ),
    Fault(
        "expert_linear cpu: what fills up counts",
        "experts/cpu.py",
        ".mul_(pairs.real)[:, None]",
        "[:, None]",
        EXPERTS,
    ),
    Fault(
        "products: the transpose forgotten",
        "core/matmul_cpu.py",
        "_operator(g.t(), a).t() if of_b",
        "_operator(a.t(), g).contiguous().view(b.t().shape).t() if of_b",
        ("test_products.py",),
    ),
    Fault(
        "expert_linear cpu: gradients of weights without alpha",
        "experts/cpu.py",
        "            upstream.mul_(share[span])\n",
        "            pass\n",
        EXPERTS,
    ),
    Fault(
        "route_by_memory: ties to the highest expert",
        "experts/routing.py",
        "best = left.max(1, keepdim=True).indices",
        "best = left.size(1) - 1 - left.flip(1).max(1, keepdim=True).indices",
        ("test_route.py",),
    ),
    Fault(
        "structure_kl triton: products of 32 bits in an address",
        "structure_kl/triton.py",
        "j = tl.load(other + e, mask=live, other=0).to(tl.int64)\n        if OUT:",
        "j = tl.load(other + e, mask=live, other=0).to(tl.int32)\n        if OUT:",
        ("test_aot_structure_kl.py",),
    ),
    Fault(
        "gat_aggregate triton: a hub's chunks are not rescaled",
        "gat/triton.py",
        "acc = acc * shrink[:, None] + tl.load(part + slot, mask=cells, other=0.0) * grow[:, None]",
        "acc = acc + tl.load(part + slot, mask=cells, other=0.0) * grow[:, None]",
        GAT_TRITON,
    ),
    Fault(
        "gat_aggregate triton: chunks are found by products of 32 bits",
        "gat/triton.py",
        "state = part_state + program.to(tl.int64) * HEADS + head",
        "state = part_state + program * HEADS + head",
        ("test_aot_gat.py",),
    ),
    Fault(
        "soft_kl triton: a gradient without the temperature",
        "soft_kl/triton.py",
        "pull = (q - p) * scale",
        "pull = q - p",
        ("test_soft_kl.py",),
        only="values_and_gradients and triton",
    ),
    Fault(
        "structure_kl triton: an edge beyond the row's last",
        "structure_kl/triton.py",
        "w = tl.where(live, w * _slope_of(KERNEL, m, sigma), 0.0)",
        "w = w * _slope_of(KERNEL, m, sigma)",
        ("test_structure_kl_triton.py", "test_ragged_triton.py"),
    ),
    Fault(
        "expert_linear triton: results without their weights",
        "experts/triton.py",
        "(acc * share[:, None]).to(out.dtype.element_ty)",
        "acc.to(out.dtype.element_ty)",
        EXPERTS,
        only="triton",
    ),
    Fault(
        "expert_linear triton: the sort forgets the rows above",
        "experts/triton.py",
        "rank = tl.cumsum(taken, 0) - taken",
        "rank = taken - taken",
        EXPERTS,
        only="triton",
    ),
    Fault(
        "route_by_memory triton: ties to the highest expert",
        "experts/routing_triton.py",
        "first = tl.min(tl.where(left == top[:, None], e[None, :], BLOCK_E), 1)",
        "first = tl.max(tl.where(left == top[:, None], e[None, :], -1), 1)",
        ("test_route.py",),
        only="triton",
    ),
    Fault(
        "rbm_layer: BatchNorm's mean stays",
        "experts/folded.py",
        "factor * (shift - batch_norm.mean.to(wide)) + batch_norm.shift.to(wide)",
        "factor * shift + batch_norm.shift.to(wide)",
        ("test_rbm_layer.py",),
        only="cpu",
    ),
    Fault(
        "rbm_layer: a single row goes to its worst experts",
        "experts/folded.py",
        "score.sort(descending=True, stable=True)",
        "score.sort(descending=False, stable=True)",
        ("test_rbm_layer.py",),
        only="single",
    ),
    Fault(
        "rbm_layer: a row of many zeros loses its last non-zero",
        "experts/folded.py",
        "found = row.nonzero().flatten()",
        "found = row.nonzero().flatten()[:-1]",
        ("test_rbm_layer.py",),
        only="single and cpu",
    ),
    Fault(
        "rbm_layer numba: what is left of four non-zeros is dropped",
        "experts/folded_numba.py",
        "for j in range(count - count % 4, count):",
        "for j in range(count, count):",
        ("test_rbm_layer.py",),
        only="numba",
    ),
    Fault(
        "rbm_layer numba: ties to the highest expert",
        "experts/folded_numba.py",
        "score[e] > score[best] or",
        "score[e] >= score[best] or",
        ("test_rbm_layer.py",),
        only="ties and numba",
    ),
    Fault(
        "rbm_layer numba: a later chunk is the first one",
        "experts/folded_numba.py",
        "count = _non_zeros(x, indptr, index, i, column, value)",
        "count = _non_zeros(x, indptr, index, i - start, column, value)",
        ("test_rbm_layer.py",),
        only="numba",
    ),
    Fault(
        "segment_softmax triton: the sum is not taken off",
        "segment/triton.py",
        "(p * (upstream - dot[None, :]))",
        "(p * upstream)",
        ("test_readout_triton.py",),
    ),
    Fault(
        "segment_max: ties to the highest row",
        "segment/reference.py",
        'winner = torch.full(shape, rows, device=x.device).scatter_reduce(0, where, row.where(wins, rows), "amin")',
        'winner = torch.full(shape, -1, device=x.device).scatter_reduce(0, where, row.where(wins, -1), "amax")',
        ("test_readout.py",),
    ),
    Fault(
        "segment_sum: the last row of a segment alone",
        "segment/reference.py",
        "index_add(0, segment, x.to(wide))",
        "index_copy(0, segment, x.to(wide))",
        ("test_readout.py",),
    ),
    Fault(
        "segment_mean: a segment of one row counts as two",
        "segment/op.py",
        "ptr.diff().clamp(min=1)",
        "ptr.diff().clamp(min=2)",
        ("test_readout.py",),
    ),
    Fault(
        "structure_kl: not divided by the nodes",
        "structure_kl/op.py",
        "losses.append(divergence(log_teacher.to(log_student.dtype), log_student, graph.num_dst))",
        "losses.append(divergence(log_teacher.to(log_student.dtype), log_student, 1))",
        ("test_structure_kl.py",),
    ),
]

CORNERS = ("test_attention_corners.py",)
FAULTS += [
    Fault(
        "gat cpu: slope 1 at a score of 0", "gat/cpu.py", "negative_part = (p <= 0)", "negative_part = (p < 0)", CORNERS
    ),
    Fault(
        "gat numba: slope 1 at a score of 0, backward",
        "gat/numba.py",
        "steep[at + k] = less if score <= 0 else 1",
        "steep[at + k] = less if score < 0 else 1",
        CORNERS,
        "numba",
    ),
    Fault(
        "gat triton: slope 1 at a score of 0, forward",
        "gat/triton.py",
        "negative_part = tl.where(raw <= 0,",
        "negative_part = tl.where(raw < 0,",
        CORNERS,
        "slope and triton",
    ),
    Fault(
        "gat triton: slope 1 at a score of 0, backward",
        "gat/triton.py",
        "sloped = tl.where(raw <= 0,",
        "sloped = tl.where(raw < 0,",
        CORNERS,
        "slope and triton",
    ),
    Fault(
        "gat triton: a masked tile first",
        "gat/triton.py",
        "p = tl.exp(score - base[None, :])",
        "p = tl.exp(score - higher[None, :])",
        CORNERS,
        "masked and triton",
    ),
    Fault(
        "gat triton: a masked chunk first",
        "gat/triton.py",
        "shrink, grow = tl.exp(peak - base), tl.exp(chunk_peak - base)",
        "shrink, grow = tl.exp(peak - higher), tl.exp(chunk_peak - higher)",
        CORNERS,
        "masked and triton",
    ),
    Fault(
        "spmm: a mean in half precision as a rounded sum",
        "spmm/op.py",
        'if reduce == "mean" and x.dtype != wide and chosen not in',
        'if reduce == "median" and chosen not in',
        ("test_half_precision.py",),
        "mean",
    ),
    Fault(
        "spmm cpu: products in half precision are rounded",
        "spmm/cpu.py",
        "g.index_select(0, graph.row[edges]).to(wide).mul_(",
        "g.index_select(0, graph.row[edges]).mul_(",
        ("test_half_precision.py",),
        "product",
    ),
    Fault(
        "graph: strides are forgotten",
        "graph.py",
        "plain(indptr), plain(index), num_src",
        "indptr, index, num_src",
        ("test_graph.py",),
        "strided",
    ),
    Fault(
        "kept: in the mode of the first call",
        "kept.py",
        "with torch.inference_mode(False), torch.no_grad(), _no_transforms():",
        "with _no_transforms():",
        ("test_kept_values.py",),
        "inference",
    ),
    Fault(
        "derivatives: no tie of a second derivative",
        "core/derivatives.py",
        "    if not wanted or not place:\n",
        "    if True:\n",
        ("test_derivatives.py",),
        "second and cpu",
    ),
    Fault(
        "derivatives: tangents are lost",
        "core/derivatives.py",
        "    if forward_ad._current_level < 0:\n",
        "    if True:\n",
        ("test_derivatives.py",),
        "forward_mode and cpu",
    ),
    Fault(
        "autocast: registered operators are cast inside",
        "core/registration.py",
        "shielded(run)",
        "run",
        ("test_autocast.py",),
        "inside_an_operator",
    ),
]


def caught(fault: Fault | None, tests: tuple[str, ...], only: str = "") -> str:
    """What the tests say of a copy with the fault: "caught", "missed", or why nothing can be said."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        shutil.copytree(SOURCES, home / "gkdkernels", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests" / "gkdkernels", home / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests" / "support", home / "support", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "tests" / "conftest.py", home / "conftest.py")
        (home / "pytest.ini").write_text("[pytest]\nmarkers =\n    full: slow\n    data: files\n", encoding="utf-8")
        if fault is not None:
            path = home / "gkdkernels" / fault.file
            text = path.read_text(encoding="utf-8")
            if text.count(fault.right) != 1:
                return f"not planted: {fault.file} has its line {text.count(fault.right)} times"
            path.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
        # The tests' own process says which package it loaded: a second process would import torch again.
        loaded = home / "loaded.txt"
        with (home / "conftest.py").open("a", encoding="utf-8") as conftest:
            conftest.write(f"\nimport gkdkernels\n\nopen({str(loaded)!r}, 'w').write(gkdkernels.__file__)\n")
        environment = os.environ | {"PYTHONPATH": folder, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-m", "not full"]
        command += [*(f"tests/{name}" for name in tests), *(["-k", only] if only else [])]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=home)
        if not loaded.is_file() or not loaded.read_text(encoding="utf-8").startswith(folder):
            return f"not planted: the copy does not load: {(done.stderr or done.stdout).strip()[-200:]}"
    # 1 is a failed test; everything else but 0 is a run that was none
    return {0: "missed", 1: "caught"}.get(done.returncode, f"no run: {done.stdout.strip()[-300:]}")


def main(argv: Sequence[str] | None = None) -> int:
    """Print one line for each fault; 0 if all are caught and the tests are green without them."""
    asked = sys.argv[1:] if argv is None else argv
    faults = [fault for fault in FAULTS if not asked or any(word in fault.name for word in asked)]
    healthy: dict[tuple[tuple[str, ...], str], bool] = {}
    bad = 0
    for fault in faults:
        if not fault.possible:
            print(f"left out {fault.name}: {fault.needs} is not installed")
            continue
        run = (fault.tests, fault.only)
        if run not in healthy:
            healthy[run] = caught(None, *run) == "missed"
        verdict = caught(fault, *run) if healthy[run] else "nothing shown: the tests are red without a fault"
        bad += verdict != "caught"
        print(f"{verdict:8} {fault.name}", flush=True)
    print(f"{len(faults) - bad} of {len(faults)} caught")
    return 1 if bad or not faults else 0


if __name__ == "__main__":
    sys.exit(main())
