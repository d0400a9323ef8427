"""A board with one of everything that a page must show."""

from __future__ import annotations

from gkdbench.records.schema import Record
from gkdbench.report import Expected
from support.records_factory import SGC, TEN, record, sha, teacher, teacher_of


def sample_records() -> list[Record]:
    """Solo rows, taught rows, peers, as released, a failure, a preview, two kinds of runs, three settings."""
    found: list[Record] = []
    for k, (dataset, published) in enumerate({"cora": 0.815, "citeseer": 0.703, "pubmed": 0.79}.items()):
        place = {"dataset": dataset, "data_sha256": sha(dataset)}
        sage = teacher(mean=0.79 + 0.01 * k, **place)
        gat = teacher("gat", "GAT 8x16", mean=0.80, macs=20000, **place)
        kipf = teacher("gcn", "GCN 2x16 (Kipf 2017)", "kipf2017_gcn", mean=published - 0.002 * 4**k, std=0.004, **place)
        special = teacher("sage", "SAGE 2x256 (release)", "release", mean=0.81, **place)
        found += [sage, gat, kipf, special, record(mean=0.59, macs=9000, **place),
                  teacher("appnp", "APPNP 2x128", mean=0.81, **place),
                  record("sgc", "SGC", config=SGC, needs="graph", macs=700, mean=0.80, std=0.003, **place),
                  record("glnn", "GLNN 2x128", mean=0.78, macs=9000, teachers=teacher_of(sage), std=0.012, **place),
                  record("rbm", "RbM 8 experts", mean=0.782, macs=9000, teachers=teacher_of(sage),
                         failed={(4, 4): "oom", (7, 7): "nan"}, **place),
                  record("kd", "KD to GCN 2x64", mean=0.815, needs="graph", macs=8000, teachers=teacher_of(gat),
                         **place),
                  record("glnn", "GLNN 2x128", variant="as_released", mean=0.779, macs=9000, teachers=teacher_of(sage),
                         **place),
                  record("glnn", "GLNN 2x256", mean=0.79, macs=18000, teachers=teacher_of(special), **place),
                  record("dml", "DML 3 peers", mean=0.62, macs=9000, peers=3, ensemble=True, runs=TEN[:4],
                         **place)]  # fmt: skip
    ind = {"dataset": "cora", "data_sha256": sha("cora"), "split": "cpf-lcc-20-30-ind20", "setting": "ind",
           "columns": ("tran", "ind", "prod")}  # fmt: skip
    sage = teacher(mean=0.79, std=0.02, **ind)
    found += [sage, record(mean=0.59, macs=9000, **ind), record(mean=0.591, threads=2, **ind),
              record("glnn", "GLNN 2x128", variant="as_released", mean=0.785, std=0.017, teachers=teacher_of(sage),
                     **ind)]  # fmt: skip
    return found


def expected() -> list[Expected]:
    """One group that nobody ran."""
    return [Expected("f" * 64, "MLP 2x128", "amazon-photo", "cpf-lcc-20-30", "tran", frozenset(TEN))]
