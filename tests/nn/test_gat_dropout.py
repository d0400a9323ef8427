"""GAT's dropouts of the release: summed features apart from scores, and the input of each head anew."""

from __future__ import annotations

import torch
from gkdkernels import CSRGraph, SparseFeatures

from gkdbench.nn.gat import GAT, GATConfig
from gkdbench.nn.random import Randomness

GRAPH = CSRGraph.from_edge_index(torch.tensor([[0, 1, 2, 3, 0, 1], [0, 1, 2, 3, 1, 2]]), 4)


def model(**settings: float | bool) -> GAT:
    config = GATConfig(heads=3, head_width=2, dropout=0.5, attention_dropout=0.0, **settings)  # type: ignore[arg-type]
    built = config.build(5, 2, Randomness(0))
    assert isinstance(built, GAT)
    return built


def test_without_dropout_each_head_alone_gives_what_one_product_gives() -> None:
    together, apart = model(), model(head_dropout=True)
    x = torch.rand(4, 5)
    assert torch.equal(together.eval()(x, GRAPH), apart.eval()(x, GRAPH))
    for dropout in (d for conv in apart.convs for d in conv.head_dropouts):
        dropout.p = 0.0
    torch.testing.assert_close(apart.train()(x, GRAPH), together.eval()(x, GRAPH))


def test_heads_drop_their_own_inputs() -> None:
    conv = model(head_dropout=True).train().convs[0]
    with torch.no_grad():  # every head the same map of an input of ones: only the masks can differ
        conv.linear.weight.copy_(torch.ones_like(conv.linear.weight))
    h, _, _ = conv._scored(torch.ones(64, 5))
    heads = h.view(64, 3, 2)[:, :, 0]
    assert not torch.equal(heads[:, 0], heads[:, 1])
    assert not torch.equal(heads[:, 1], heads[:, 2])


def test_sparse_features_drop_the_same_way() -> None:
    built = model(head_dropout=True).train()
    out = built(SparseFeatures.from_dense(torch.rand(4, 5)), GRAPH)
    out.sum().backward()
    assert torch.isfinite(out).all()
    assert built.convs[0].linear.weight.grad is not None


def test_value_dropout_leaves_the_scores_alone() -> None:
    conv = model(value_dropout=0.5).train().convs[0]
    x = torch.rand(4, 5)
    scores = conv._scored(x)[1:]
    assert all(torch.equal(a, b) for a, b in zip(scores, model(value_dropout=0.0).convs[0]._scored(x)[1:], strict=True))
    assert not torch.equal(conv(x, GRAPH), conv.eval()(x, GRAPH))
