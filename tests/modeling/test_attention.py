import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from d2_detr.modeling.attention import MultiheadAttention
from d2_detr.modeling.dropout import Dropout


def pair_of_modules(hidden_dim=16, num_heads=4):
    ours = MultiheadAttention(hidden_dim, num_heads).double()
    nn.init.normal_(ours.in_proj_bias)
    nn.init.normal_(ours.out_proj.bias)
    torchs = nn.MultiheadAttention(hidden_dim, num_heads, batch_first=True).double()
    torchs.load_state_dict(ours.state_dict())
    return ours, torchs


@pytest.mark.parametrize("with_gradients", [False, True], ids=["inference", "training"])
@given(st.integers(1, 3), st.integers(1, 7), st.integers(1, 9), st.booleans(), st.booleans())
@settings(max_examples=25, deadline=None)
def test_it_computes_what_torch_computes(with_gradients, batch, queries, keys, padded, self_attention):
    ours, torchs = pair_of_modules()
    query = torch.randn(batch, queries, 16, dtype=torch.float64, requires_grad=True)
    key = query if self_attention else torch.randn(batch, keys, 16, dtype=torch.float64)
    value = torch.randn_like(key)
    mask = torch.arange(key.shape[1]) >= torch.randint(1, key.shape[1] + 1, (batch, 1)) if padded else None
    with torch.set_grad_enabled(with_gradients):
        output = ours(query, key, value, mask)
        expected, weights = torchs(query, key, value, key_padding_mask=mask, average_attn_weights=False)
        torch.testing.assert_close(output, expected)
        torch.testing.assert_close(ours.weights(query, key, mask), weights)
    if with_gradients:
        gradients = [torch.autograd.grad(x.square().sum(), query, retain_graph=True)[0] for x in (output, expected)]
        torch.testing.assert_close(*gradients)


def test_a_mask_without_padding_changes_nothing():
    ours, _ = pair_of_modules()
    x = torch.randn(2, 5, 16, dtype=torch.float64)
    torch.testing.assert_close(ours(x, x, x), ours(x, x, x, torch.zeros(2, 5, dtype=torch.bool)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_that_share_and_keeps_the_mean(p, dtype):
    x = torch.ones(3, 1001, 101, dtype=dtype, requires_grad=True)
    y = Dropout(p).train()(x)
    assert (y == 0).double().mean().item() == pytest.approx(p, abs=4e-3)
    assert y.double().mean().item() == pytest.approx(1, abs=6e-3)
    y.sum().backward()
    torch.testing.assert_close(x.grad, y.detach())


def test_dropout_follows_the_seed_and_rests_in_evaluation():
    x = torch.randn(7, 13)

    def drop(seed):
        torch.manual_seed(seed)
        return Dropout(0.3).train()(x)

    assert torch.equal(drop(1), drop(1))
    assert not torch.equal(drop(1), drop(2))
    assert torch.equal(Dropout(0.3).eval()(x), x)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_dropout_of_nothing_and_of_everything(p):
    x = torch.randn(5, 5)
    assert torch.equal(Dropout(p).train()(x), x * (1 - p))
