"""What may stand in one table, what is averaged, and what may be called better."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.records_factory import TEN, model, record, row, sha, teacher, teacher_of
from support.sample_board import expected, sample_records

from gkdbench.errors import UserError
from gkdbench.records.schema import Record, TeacherInfo
from gkdbench.report import Expected, build, table_of
from gkdbench.report.cells import BY_KEY, filled, score
from gkdbench.report.markdown import Selection, markdown_table
from gkdbench.report.model import Table, TableRow
from gkdbench.report.naming import distinct_labels
from gkdbench.report.wide import WideSelection, wide_table

SAGE = teacher()


def entry_of(columns: tuple[Table, ...] | list[Table], name: str) -> TableRow:
    (found,) = [entry for column in columns for entry in column.entries if entry.name == name]
    return found


def glnn(**fields: object) -> Record:
    return record("glnn", "GLNN 2x128", **{"mean": 0.78, "teachers": teacher_of(SAGE)} | fields)  # type: ignore[arg-type]


def test_two_split_ids_never_share_a_column() -> None:
    """docs/protocol.md, trap 29."""
    with pytest.raises(UserError, match="merge the split ids 'planetoid-public' and 'cpf-lcc-20-30'"):
        table_of([record(), record(label="MLP 2", split="cpf-lcc-20-30")], "tran")
    board = build(
        [record(), record(split="cpf-lcc-20-30"), record(split="cpf-lcc-20-30-ind20", columns=("ind", "tran"))]
    )
    assert [(c.split, c.setting) for c in board.tables] == [
        ("cpf-lcc-20-30", "tran"), ("cpf-lcc-20-30-ind20", "tran"), ("cpf-lcc-20-30-ind20", "ind"),
        ("planetoid-public", "tran"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("field", "value", "note"),
    [("threads", 2, "threads 2"), ("data_sha256", "e" * 64, "data eeeeeeeeeeee"), ("device", "H200", "device H200"),
     ("tier", "tuned", "tuned, 0 trials"), ("audit_every", 5, "audit every 5"), ("setting", "ind", "training ind")],
)  # fmt: skip
def test_kinds_of_runs_stand_in_tables_of_their_own(field: str, value: object, note: str) -> None:
    pair = [record(), record(label="other", **{field: value})]  # type: ignore[arg-type]
    with pytest.raises(UserError, match="rows of one table share it"):
        table_of(pair, "tran")
    columns = build(pair).tables
    assert len(columns) == 2
    assert any(c.notes == (note,) for c in columns), [c.notes for c in columns]


def test_tuned_rows_stand_apart_and_leave_the_published_table_as_it_was() -> None:
    board = build([record(), record(label="tuned MLP", tier="tuned", trials=8)])
    assert [(c.tier, c.notes) for c in board.tables] == [("published", ()), ("tuned", ("tuned, 8 trials",))]
    assert "tuned" not in markdown_table(board, Selection())
    assert "tuned MLP" in markdown_table(board, Selection(tiers=("tuned",)))
    assert "tuned" not in wide_table(board, WideSelection(("cora/planetoid-public/tran",)))


def test_different_nodes_under_one_split_index_are_refused() -> None:
    stale = record(label="stale", rows=[row(0, 0, [model("student", {"tran": 0.5})], split="another")])
    with pytest.raises(UserError, match="different nodes in split 0 of planetoid-public"):
        build([record(), stale])


def test_a_section_has_one_teacher_and_the_same_weights_in_every_run() -> None:
    """docs/protocol.md, trap 28."""
    gat = teacher("gat", "GAT 8x16")
    board = build([SAGE, gat, glnn(), record("kd", "KD", teachers=teacher_of(gat))])
    assert {s.title: [e.method for e in s.entries] for s in board.tables[0].sections} == {
        "Trained alone": ["teacher", "teacher"], "Taught by SAGE 2x128": ["glnn"], "Taught by GAT 8x16": ["kd"],
    }  # fmt: skip
    one = glnn()
    other = record("kd", "KD", teachers=teacher_of(SAGE))
    moved = other.rows[0].model_copy(update={"teachers": {"teacher": sha("other weights")}})
    with pytest.raises(UserError, match=r"different teacher weights in run \(0, 0\)"):
        build([one, other.model_copy(update={"rows": [moved, *other.rows[1:]]})])


def test_released_forms_and_released_teachers_stand_apart_and_last() -> None:
    special = teacher(label="SAGE 2x256", recipe="release")
    board = build(
        [SAGE, record(), glnn(), glnn(variant="as_released"), record("krd", "KRD", teachers=teacher_of(special))]
    )
    sections = board.tables[0].sections
    assert [s.title for s in sections] == [
        "Trained alone", "Taught by SAGE 2x128", "Taught by SAGE 2x256", "As released: taught by SAGE 2x128",
    ]  # fmt: skip
    assert "own teacher" in sections[2].note and "never a headline" in sections[3].note


def test_an_incomplete_row_has_no_mean_and_says_how_far_it_is() -> None:
    """docs/protocol.md, trap 3: a run that is missing is never averaged over."""
    failed = entry_of(build([record(failed={(1, 1): "oom", (2, 2): "nan", (3, 3): "timeout"})]).tables, "MLP 2x128")
    assert failed.mean_std is None and failed.gap is None and not failed.complete
    assert score(failed) == "incomplete, 7/10"
    assert failed.statuses == {"ok": 7, "oom": 1, "nan": 1, "timeout": 1}


def test_a_failed_run_that_left_a_score_counts_with_it() -> None:
    made = record()
    collapsed = made.rows[0].model_copy(update={"status": "nan", "phase": "fit", "reason": "NaN in epoch 9"})
    board = build([made.model_copy(update={"rows": [collapsed, *made.rows[1:]]})])
    assert entry_of(board.tables, "MLP 2x128").mean_std == (pytest.approx(0.6), pytest.approx(0.01))
    assert [(f.status, f.reason) for f in board.failures] == [("nan", "NaN in epoch 9")]


def test_fewer_than_ten_runs_are_a_preview_and_marked() -> None:
    """docs/protocol.md, trap 10."""
    preview = entry_of(build([record(runs=TEN[:9])]).tables, "MLP 2x128")
    assert preview.preview and score(preview).endswith("(preview)")
    assert not entry_of(build([record()]).tables, "MLP 2x128").preview
    assert score(entry_of(build([record(runs=TEN[:1])]).tables, "MLP 2x128")) == "60.00 (preview)"


def test_what_the_plan_asked_for_and_nobody_ran_is_listed() -> None:
    made = record(runs=TEN[:7])
    plan = [Expected(made.key, made.label, "cora", "planetoid-public", "tran", frozenset(TEN)), *expected()]
    board = build([made], expected=plan)
    assert [(m.expected.dataset, len(m.runs)) for m in board.missing] == [("cora", 3), ("amazon-photo", 10)]
    assert score(entry_of(board.tables, "MLP 2x128")) == "incomplete, 7/10"


def test_skipped_runs_are_missing_and_no_failures() -> None:
    made = record(failed=dict.fromkeys(TEN, "skipped"))
    plan = [Expected(made.key, made.label, "cora", "planetoid-public", "tran", frozenset(TEN))]
    board = build([made], expected=plan)
    assert board.failures == () and len(board.missing[0].runs) == 10


def test_a_record_or_a_run_twice_is_refused() -> None:
    with pytest.raises(UserError, match="two records of MLP 2x128"):
        build([record(), record()])
    with pytest.raises(UserError, match=r"stores runs \[\(0, 0\)\] twice"):
        build([record(rows=[record().rows[0]] * 2)])


def test_rows_of_one_label_name_what_tells_them_apart() -> None:
    pair = [record(config={"lr": 0.1}), record(config={"lr": 0.2}, mean=0.7)]
    assert [entry.name for entry in build(pair).tables[0].entries] == ["MLP 2x128, lr 0.2", "MLP 2x128, lr 0.1"]
    usual = {"lr": 0.1, "model": {"gate": False}}
    several = [usual, usual | {"model": {"gate": True}}, usual | {"lr": 0.2, "batch_size": 64}]
    found = distinct_labels([record(config=config) for config in several])
    assert list(found.values()) == ["MLP 2x128", "MLP 2x128, gate true", "MLP 2x128, lr 0.2, batch size 64"]


def test_rows_that_no_setting_tells_apart_carry_their_key() -> None:
    pair = [record(), record(device="other")]
    assert list(distinct_labels(pair).values()) == [f"MLP 2x128 [{made.key[:6]}]" for made in pair]


def test_peers_are_averaged_and_their_ensemble_is_a_row_of_its_own() -> None:
    entries = {e.aggregate: e for e in build([record("dml", "DML", peers=3, ensemble=True)]).tables[0].entries}
    assert set(entries) == {"mean of peers", "best on validation", "ensemble"}
    assert entries["mean of peers"].mean_std == (pytest.approx(0.6), pytest.approx(0.01))
    assert entries["ensemble"].mean_std == (pytest.approx(0.61), pytest.approx(0.01))


def test_the_best_peer_is_chosen_on_validation_and_a_missing_peer_is_not_averaged_over() -> None:
    low = model("peer0", {"tran": 0.9}, val=0.5)
    high = model("peer1", {"tran": 0.4}, val=0.6)
    made = record("dml", "DML", rows=[row(0, 0, [low, high], split="planetoid-public"),
                                      row(1, 1, [low], split="planetoid-public")])  # fmt: skip
    entries = {e.aggregate: e for e in build([made]).tables[0].entries}
    assert entries["best on validation"].scores == {(0, 0): 0.4}
    assert entries["mean of peers"].scores == {(0, 0): pytest.approx(0.65)}


def test_bold_needs_a_win_over_the_strongest_affordable_control() -> None:
    weak, strong = record(mean=0.6), record("mlp", "MLP, smoothed", mean=0.7, std=0.02)
    dear = record("mlp", "MLP 2x1024", mean=0.9, macs=50_000)
    graph = record("sgc", "SGC", mean=0.95, needs="graph", macs=10)
    board = build([SAGE, weak, strong, dear, graph, glnn()])
    found = entry_of(board.tables, "GLNN 2x128")
    assert found.versus is not None and found.versus.control == "MLP, smoothed"
    assert found.versus.estimate.difference == pytest.approx(0.08) and found.bold
    assert [e.name for e in board.tables[0].entries if e.bold] == ["GLNN 2x128"]


def test_a_control_under_the_same_teacher_has_to_be_beaten_too() -> None:
    """docs/protocol.md, traps 14, 27: a wider MLP, five models, routing without memory."""
    taught = {"teachers": teacher_of(SAGE)}
    controls = [
        record("mlp_params", "MLP with the parameters", mean=0.79, **taught),
        record("ensemble", "5 x glnn", mean=0.795, **taught),
        record("rbm", "RbM, random", mean=0.81, config={"model": {"routing": "random"}}, **taught),
    ]
    for count, strongest in enumerate(("MLP", "MLP with the parameters", "5 x glnn", "RbM, random")):
        found = entry_of(
            build([SAGE, record(mean=0.6, label="MLP"), glnn(mean=0.8), *controls[:count]]).tables, "GLNN 2x128"
        )
        assert found.versus is not None and found.versus.control == strongest
        assert found.bold is (count < 3)
    section = build([SAGE, record(mean=0.6), glnn(), *controls]).tables[0].sections[1]
    assert [entry.name for entry in section.entries if entry.versus] == ["GLNN 2x128"]


@pytest.mark.parametrize(
    ("method", "off", "on"),
    [
        ("dml", {"lam": 0.0}, {"lam": 1.0}),
        ("alignahead", {"direction": "none"}, {"direction": "ahead"}),
    ],
)
def test_peers_that_teach_each_other_have_to_beat_the_best_of_those_that_do_not(
    method: str, off: dict[str, object], on: dict[str, object]
) -> None:
    alone = record(method, "alone", config=off, mean=0.7, peers=2)
    together = record(method, "together", config=on, mean=0.72, peers=2)
    entries = build([alone, together]).tables[0].entries
    found = {(e.label, e.aggregate): e for e in entries}
    versus = found["together", "mean of peers"].versus
    assert versus is not None and versus.control == "alone, best on validation"
    assert versus.estimate.difference == pytest.approx(0.02)
    assert found["alone", "mean of peers"].versus is None


def test_peers_are_compared_at_equal_cost_of_inference_and_of_training() -> None:
    """Protocol trap 14, protocol controls G3 and G4: an ensemble answers K times and was trained as long; a third
    model was trained longer."""
    alone = record("dml", "alone", config={"lam": 0.0, "epochs": 20}, mean=0.7, peers=2, ensemble=True)
    more = record("dml", "more", config={"lam": 0.0, "epochs": 20, "peers": 3}, mean=0.8, peers=3)
    dear = record("mlp", "MLP 2x1024", mean=0.9, macs=2100, config={"epochs": 20})
    slow = record("mlp", "MLP 2x1000", mean=0.9, macs=1900, config={"epochs": 30})
    members = {f"member{k}": TeacherInfo(key=sha(k), method="mlp", label="", config={"epochs": 21}) for k in (0, 1)}
    both = record("ensemble", "2 x MLP", mean=0.9, peers=2, config={}, teachers=members)
    together = record("dml", "together", config={"lam": 1.0, "epochs": 20}, mean=0.72, peers=2, ensemble=True)
    entries = build([alone, more, dear, slow, both, together, glnn(), SAGE]).tables[0].entries
    found = {(e.label, e.aggregate): e for e in entries}
    row = found["together", "mean of peers"]
    assert row.training_macs == 40_000 and found["2 x MLP", "mean of peers"].training_macs == 42_000
    assert row.versus_training is not None and row.versus is not None
    assert row.versus.control == "2 x MLP, best on validation"
    assert row.versus_training.control == "alone, ensemble"
    assert row.versus_training.estimate.difference == pytest.approx(0.01)
    assert found["together", "ensemble"].versus_training is not None
    assert found["alone", "mean of peers"].versus_training is None, "a control is not compared"
    student = found["GLNN 2x128", "single"]
    assert student.versus_training is None and student.training_macs is None, "what its teacher cost is not known"


def test_peers_of_different_size_cost_what_the_dearest_costs() -> None:
    def peers(label: str, lam: float, mean: float) -> Record:
        rows = [
            row(i, i, [model("peer0", {"tran": mean}, macs=1000 + i % 2), model("peer1", {"tran": mean}, macs=3000),
                       model("ensemble", {"tran": mean}, macs=4000)], split="planetoid-public")
            for i in range(10)
        ]  # fmt: skip
        return record("dml", label, config={"lam": lam, "epochs": 2}, rows=rows)

    entries = build([peers("alone", 0.0, 0.7), peers("together", 1.0, 0.72)]).tables[0].entries
    found = {(e.label, e.aggregate): e for e in entries}
    versus = found["together", "best on validation"].versus
    assert versus is not None and versus.control == "alone, best on validation"
    assert found["together", "mean of peers"].macs == 3000
    assert found["together", "ensemble"].training_macs == 8001, "a mean over the runs"


def test_flags_are_said_beside_the_runs_that_carry_them() -> None:
    made = record(failed={(9, 9): "error"})
    rows = [r.model_copy(update={"flags": ["collapsed"] if r.seed in (1, 2, 9) else []}) for r in made.rows]
    (entry,) = build([made.model_copy(update={"rows": rows})]).tables[0].entries
    assert BY_KEY["n"].text(entry) == "9/10, 1 error, 2 collapsed", "a run without a score is listed as failed"


def test_energy_is_a_mean_only_where_every_run_has_a_reading() -> None:
    made = record()
    read = made.model_copy(update={"rows": [r.model_copy(update={"train_j": 100.0 + r.seed}) for r in made.rows]})
    (entry,) = build([read]).tables[0].entries
    assert entry.train_j == pytest.approx(104.5) and BY_KEY["energy"].text(entry) == "104"
    partly = read.model_copy(update={"rows": [*read.rows[:-1], made.rows[-1]]})
    (entry,) = build([partly]).tables[0].entries
    assert entry.train_j is None
    assert "energy" not in [cell.key for cell in filled([entry])]


def test_no_bold_for_an_equal_a_worse_a_preview_or_without_a_control() -> None:
    wavering = glnn(mean=0.6)
    shifted = [
        r.model_copy(
            update={"models": [model("student", {"tran": r.models[0].scores["tran"].value + 0.001 * (-1) ** k})]}
        )
        for k, r in enumerate(wavering.rows)
    ]
    equal = entry_of(build([record(mean=0.6), wavering.model_copy(update={"rows": shifted})]).tables, "GLNN 2x128")
    assert equal.versus is not None and equal.versus.outcome == "equal" and not equal.bold
    loss = entry_of(build([record(mean=0.9), glnn()]).tables, "GLNN 2x128")
    assert loss.versus is not None and loss.versus.outcome == "worse" and not loss.bold
    preview = entry_of(build([record(runs=TEN[:8]), glnn(runs=TEN[:8])]).tables, "GLNN 2x128")
    assert preview.versus is not None and preview.versus.outcome is None and not preview.bold
    assert preview.versus.said == "preview, 8 runs"
    alone = entry_of(build([glnn()]).tables, "GLNN 2x128")
    assert alone.versus is None and not alone.bold
    unpaired = entry_of(build([record(runs=TEN[:9]), glnn()]).tables, "GLNN 2x128")
    assert unpaired.versus is None and not unpaired.bold


def test_a_taught_section_without_a_control_says_so() -> None:
    """docs/protocol.md, trap 14."""
    once = TEN[:1]
    for records, noted in (
        ([SAGE, glnn()], True),
        ([SAGE, record(), glnn()], False),
        ([record(runs=once), glnn(runs=once), SAGE], True),
    ):
        section = build(records).tables[0].sections[1]
        assert ("nothing is compared" in section.note) is noted


def test_a_section_is_one_family_and_a_clear_difference_is_found_among_many() -> None:
    students = [record("kd", f"KD {k}", mean=0.7, teachers=teacher_of(SAGE), config={"k": k}) for k in range(26)]
    section = build([record(), *students]).tables[0].sections[1]
    assert [e.versus.estimate.p_family for e in section.entries if e.versus] == [2 / 1024] * 26
    assert all(e.bold for e in section.entries)


def test_bold_takes_a_control_of_the_rows_own_cost() -> None:
    cheap = record("mlp", "MLP", mean=0.6, macs=100)
    found = entry_of(build([SAGE, cheap, glnn()]).tables, "GLNN 2x128")
    assert found.versus is not None and found.versus.outcome == "better" and not found.bold
    assert found.versus.said == "better, but no control is of its own cost"
    frozen = record("rbm", "RbM, frozen memories", mean=0.6, config={"model": {"routing": "frozen"}},
                    teachers=teacher_of(SAGE))  # fmt: skip
    assert not entry_of(build([SAGE, cheap, frozen, glnn()]).tables, "GLNN 2x128").bold, "another method's control"
    assert entry_of(build([SAGE, cheap, record(mean=0.6), glnn()]).tables, "GLNN 2x128").bold


def test_bold_takes_the_same_controls_on_every_data_set() -> None:
    """Five copies were run on cora alone: on pubmed the row is better than what it has there, and plain."""
    five = record("ensemble", "5 x glnn", mean=0.7, teachers=teacher_of(SAGE))
    on_cora = [SAGE, record(mean=0.6), five, glnn()]
    on_pubmed = [r.model_copy(update={"dataset": "pubmed", "key": sha(f"pubmed {r.label}")}) for r in on_cora]
    both = {t.dataset: entry_of([t], "GLNN 2x128") for t in build([*on_cora, *on_pubmed]).tables}
    assert both["cora"].bold and both["pubmed"].bold
    short = {t.dataset: entry_of([t], "GLNN 2x128") for t in build([*on_cora, *on_pubmed[:2], on_pubmed[3]]).tables}
    assert short["cora"].bold and not short["pubmed"].bold
    versus = short["pubmed"].versus
    assert versus is not None and versus.said == "better, but not run here: 5 x glnn"


def test_an_ensemble_of_finished_models_has_no_audit_gap() -> None:
    made = record()
    (entry,) = build([made]).tables[0].entries
    assert entry.gap is not None
    once = [r.model_copy(update={"epochs": 1}) for r in made.rows]
    (entry,) = build([made.model_copy(update={"rows": once})]).tables[0].entries
    assert entry.gap is None and BY_KEY["gap"].text(entry) == "–"


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(6)))
def test_the_order_of_records_does_not_matter(order: list[int]) -> None:
    records = [r for r in sample_records() if r.dataset == "cora"][:6]
    assert build([records[i] for i in order]) == build(records)


def test_summaries_rank_rows_that_are_complete_everywhere_under_one_teacher() -> None:
    gat, sage = build(sample_records()).summaries
    assert (gat.title, sage.title) == ("Taught by GAT 8x16", "Taught by SAGE 2x128")
    assert gat.datasets == sage.datasets == ("citeseer", "cora", "pubmed")
    ranks = {r.name: r.rank and r.rank.average for r in sage.rows}
    assert ranks["RbM 8 experts"] is None and ranks["APPNP 2x128"] == 2.0  # 1.5, 2.5 and 2
    assert sage.said == "Ranks: 9 rows complete on these 3 sets (cora, citeseer, pubmed), 1 are not."
    assert "KD to GCN 2x64" not in ranks and "GLNN 2x256" not in ranks
    assert next(r.tally for r in sage.rows if r.name == "GLNN 2x128") == {"better": 3}


def test_summaries_need_two_data_sets_with_one_table_each() -> None:
    assert build([record()]).summaries == ()
    twin = record(dataset="pubmed", threads=2)
    assert build([record(), record(dataset="pubmed"), twin]).summaries == ()
    (solo,) = build([record(), record(dataset="pubmed")]).summaries
    assert solo.title == "Trained alone" and [r.rank for r in solo.rows] == [None]  # never a rank among one
