"""Activations, losses, the network with any activation, and the inner problem: against autograd and finite differences in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference import MEMBERS, SEEDS, normal, random_signs
from torch.autograd.functional import hessian as autograd_hessian
from torch.testing import assert_close

import lazy_helpers as lh
from lazy_helpers.activations import ACTIVATIONS, LOSSES, Activation, Loss, activation_named, loss_named
from lazy_helpers.landscape import Network, inner_problem

SMOOTH = ("tanh", "softplus", "quadratic")
# The definitions, for autograd: none of the package's own formulas.
SIGMA = {
    "relu": lambda z: z.clamp(min=0),
    "tanh": lambda z: (z.exp() - (-z).exp()) / (z.exp() + (-z).exp()),
    "softplus": lambda z: torch.logaddexp(z, torch.zeros_like(z)),
    "quadratic": lambda z: z**2 / 2,
}
ELL = {
    "quadratic": lambda f, y: (f - y) ** 2 / 2,
    "logistic": lambda f, y: torch.logaddexp(-y * f, torch.zeros_like(f)),
    "margin": lambda f, y: -y * f,
    "quartic": lambda f, y: (f - y) ** 4 / 4 + y * f,
}
LOSS = {**LOSSES, "quartic": Loss.of(ELL["quartic"], "quartic")}
EXACT = {"rtol": 1e-11, "atol": 1e-11}
DIFFERENCE = {"rtol": 1e-7, "atol": 1e-8}  # what central differences with a step of 1e-5 leave
STEP = 1e-5


def slopes(function, z):
    """The first two derivatives of an elementwise function, by autograd."""
    z = z.clone().requires_grad_()
    (first,) = torch.autograd.grad(function(z).sum(), z, create_graph=True)
    if not first.requires_grad:
        return first, torch.zeros_like(z)
    second = torch.autograd.grad(first.sum(), z, allow_unused=True)[0]
    return first.detach(), torch.zeros_like(z) if second is None else second


def difference(function, z):
    return (function(z + STEP) - function(z - STEP)) / (2 * STEP)


def f_at(W, a, activation, x):
    """One network's value at one point (d,), by its definition."""
    return (a * SIGMA[activation](W @ x)).sum() / math.sqrt(len(a))


def L_at(problem, k, i, delta, loss):
    """The inner problem's value for member k of a flat ensemble at its point i, by its definition."""
    f = f_at(problem.net.W[k], problem.net.a[k], problem.net.activation.name, problem.x[k, i] + delta)
    return ELL[loss](f, problem.y[k, i])


# --- activations ---

Z = torch.cat([3 * normal(200), torch.tensor([0.0, -0.0, 1e-9, -1e-9, 1.0, -1.0, 15.0, -15.0, 19.0]).double()])


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_and_its_derivatives_agree_with_autograd_and_differences(name):
    sigma = ACTIVATIONS[name]
    first, second = slopes(SIGMA[name], Z)
    assert_close(sigma.value(Z), SIGMA[name](Z), **EXACT)
    away = Z.abs() > 2 * STEP if name == "relu" else Z == Z
    assert_close(sigma.first(Z)[away], first[away], **EXACT)
    assert_close(sigma.first(Z)[away], difference(SIGMA[name], Z)[away], **DIFFERENCE)
    assert sigma.smooth == (name != "relu")
    if sigma.smooth:
        assert_close(sigma.second(Z), second, **EXACT)
        assert_close(sigma.second(Z), difference(sigma.first, Z), **DIFFERENCE)


def test_relu_at_zero_counts_as_off():
    zero = torch.tensor([0.0, -0.0])
    assert ACTIVATIONS["relu"].first(zero).tolist() == [0, 0]
    assert ACTIVATIONS["relu"].first(torch.tensor([1e-300], dtype=torch.float64)).tolist() == [1]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_is_finite_far_out_and_keeps_shape_and_dtype(name):
    sigma = ACTIVATIONS[name]
    for dtype, far in ((torch.float32, 1e4), (torch.float64, 1e8)):
        z = torch.tensor([[far, -far, 30.0], [800.0, -800.0, -30.0]], dtype=dtype)
        for part in filter(None, (sigma.value, sigma.first, sigma.second)):
            assert part(z).isfinite().all() and part(z).shape == z.shape and part(z).dtype == dtype
        limit = {"relu": z.relu(), "tanh": z.sign(), "softplus": z.relu(), "quadratic": z**2 / 2}[name]
        assert_close(sigma.value(z), limit, rtol=1e-6, atol=1e-8)


# --- losses ---

F, Y = 2 * normal(300, seed=1), random_signs(300, seed=2)
TARGETS = {name: Y if LOSS[name].labels else normal(300, seed=3) for name in LOSS}


@pytest.mark.parametrize("name", LOSS)
def test_loss_and_its_derivatives_agree_with_autograd_and_differences(name):
    loss, y = LOSS[name], TARGETS[name]
    at = lambda f: ELL[name](f, y)  # noqa: E731
    first, second = slopes(at, F)
    assert_close(loss.value(F, y), at(F), **EXACT)
    assert_close(loss.first(F, y), first, **EXACT)
    assert_close(loss.second(F, y), second, **EXACT)
    assert_close(loss.first(F, y), difference(at, F), **DIFFERENCE)
    assert_close(loss.second(F, y), difference(lambda f: loss.first(f, y), F), rtol=1e-6, atol=1e-7)


def test_logistic_loss_is_finite_far_out():
    f, y = torch.tensor([900.0, -900.0, 0.0]), torch.ones(3)
    assert_close(LOSSES["logistic"].value(f, y), torch.tensor([0.0, 900.0, math.log(2)]))
    assert_close(LOSSES["logistic"].first(f, y), torch.tensor([0.0, -1.0, -0.5]))
    assert_close(LOSSES["logistic"].second(f, y), torch.tensor([0.0, 0.0, 0.25]))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_from_its_value_alone_is_the_closed_form(name):
    made, y = Loss.of(ELL[name], labels=LOSSES[name].labels), TARGETS[name]
    for part in ("value", "first", "second"):
        assert_close(getattr(made, part)(F, y), getattr(LOSSES[name], part)(F, y), **EXACT)
    assert made.name == "custom" and made.labels == LOSSES[name].labels


@pytest.mark.parametrize(
    ("value", "first", "second"),
    [
        (lambda f, y: 3 * f - y, lambda f, y: 3 + 0 * f, lambda f, y: 0 * f),
        (lambda f, y: f, lambda f, y: 1 + 0 * f, lambda f, y: 0 * f),
        (lambda f, y: f**2 / 2 - 3 * y * f + 1, lambda f, y: f - 3 * y, lambda f, y: 1 + 0 * f),
        (lambda f, y: f.abs(), lambda f, y: f.sign(), lambda f, y: 0 * f),
        (lambda f, y: torch.where(y > 0, f**2, 5 * f), lambda f, y: torch.where(y > 0, 2 * f, 5.0), lambda f, y: 2.0 * (y > 0)),
        (lambda f, y: -((f - y) ** 2) / 2, lambda f, y: y - f, lambda f, y: -1 + 0 * f),
    ],
    ids=["linear", "identity", "affine quadratic", "absolute", "two pieces", "concave"],
)  # fmt: skip
def test_derivatives_of_a_custom_loss(value, first, second):
    loss = Loss.of(value)
    with torch.no_grad():  # the caller's setting does not matter, and no graph is left behind
        got = [part(F, Y) for part in (loss.value, loss.first, loss.second)]
    for one, expected in zip(got, (value, first, second), strict=True):
        assert_close(one, expected(F, Y).double(), **EXACT)
        assert not one.requires_grad
    assert not loss.first(F, Y).requires_grad and not loss.second(F, Y).requires_grad and not F.requires_grad


def test_activations_and_losses_by_name_or_as_they_are():
    for name, activation in ACTIVATIONS.items():
        assert activation_named(name) is activation_named(activation) is activation and activation.name == name
    for name, loss in LOSSES.items():
        assert loss_named(name) is loss_named(loss) is loss and loss.name == name
    cubic = Activation("cubic", lambda z: z**3, lambda z: 3 * z**2, lambda z: 6 * z)
    net, x = Network.init(3, 4, cubic), normal(2, 3)
    assert_close(net(x), ((x @ net.W.T) ** 3 @ net.a) / 2, **EXACT)
    expected = autograd_hessian(lambda x: ((net.W @ x) ** 3 @ net.a) / 2, x[1])
    assert_close(net.hessian(x)[1], expected, **EXACT)


# --- the network ---


@given(st.integers(1, 6), st.integers(1, 12), MEMBERS, SEEDS, st.booleans())
def test_relu_network_is_the_two_layer_net_of_the_same_seed(d, m, members, seed, shared):
    net = Network.init(d, m, members=members, seed=seed)
    other = lh.TwoLayerNet.init(d, m, members, seed, dtype=torch.float64)
    assert torch.equal(net.W, other.W) and torch.equal(net.a, other.a)
    assert (net.members, net.m, net.d) == (other.members, m, d) and net.W.dtype == torch.float64
    x = normal(*(() if shared else members), 3, d, seed=seed)
    assert_close(net(x), other(x), **EXACT)
    assert_close(net.grad(x), other.grad(x), **EXACT)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("members", [(), (3,), (2, 2)])
def test_network_agrees_with_autograd_and_differences(name, members):
    net = Network.init(4, 6, name, members, seed=5)
    x, v = normal(*members, 3, 4, seed=6), normal(*members, 3, 4, seed=7)
    W, a = net.W.reshape(-1, 6, 4), net.a.reshape(-1, 6)
    rows = lambda t: t.reshape(len(W), 3, *t.shape[len(members) + 1 :])  # noqa: E731
    f, g = rows(net(x)), rows(net.grad(x))
    for k in range(len(W)):
        for i in range(3):
            at, point = (lambda p, k=k: f_at(W[k], a[k], name, p)), rows(x)[k, i]
            assert_close(f[k, i], at(point), **EXACT)
            assert_close(g[k, i], torch.func.grad(at)(point), **EXACT)
            differences = torch.stack([(at(point + e) - at(point - e)) / (2 * STEP) for e in STEP * torch.eye(4)])
            assert_close(g[k, i], differences.double(), **DIFFERENCE)
    if not net.activation.smooth:
        return
    H, Hv = rows(net.hessian(x)), rows(net.hvp(x, v))
    for k in range(len(W)):
        for i in range(3):
            expected = autograd_hessian(lambda p, k=k: f_at(W[k], a[k], name, p), rows(x)[k, i])
            assert_close(H[k, i], expected, **EXACT)
            assert_close(Hv[k, i], expected @ rows(v)[k, i], **EXACT)
    assert_close(net.hvp(x, v), (net.grad(x + STEP * v) - net.grad(x - STEP * v)) / (2 * STEP), **DIFFERENCE)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("members", [(3,), (2, 2)])
def test_members_share_points_and_each_is_the_network_of_its_own_seed(name, members):
    net, x, v = Network.init(4, 5, name, members, seed=8), normal(3, 4, seed=9), normal(3, 4, seed=10)
    calls = {
        "f": lambda net: net(x), "grad": lambda net: net.grad(x),
        "hvp": lambda net: net.hvp(x, v), "hessian": lambda net: net.hessian(x),
    }  # fmt: skip
    for k, index in enumerate(np.ndindex(members)):
        alone, member = Network.init(4, 5, name, seed=8 + k), net[index]
        assert torch.equal(member.W, alone.W) and torch.equal(member.a, alone.a) and member.members == ()
        for call in calls.values():
            assert_close(call(net)[index], call(alone), **EXACT)
    each = x.expand(*members, 3, 4)
    assert_close(net(each), net(x))
    assert_close(net.hvp(each, v), net.hvp(x, v))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_mirrored_network_is_zero_everywhere(name):
    net, x = Network.init(4, 5, name, members=(2,)).mirrored(), 3 * normal(6, 4)
    assert net.m == 10 and (net.a.sum(-1) == 0).all() and net.activation.name == name
    assert net(x).abs().max() < 1e-12 and net.grad(x).abs().max() < 1e-12
    if net.activation.smooth:
        assert net.hessian(x).abs().max() < 1e-12
    assert torch.equal(net[1].W, Network.init(4, 5, name, seed=1).mirrored().W)


def test_network_keeps_its_dtype():
    net = Network.init(4, 5, "tanh", dtype=torch.float32)
    x = normal(2, 4).float()
    assert {net(x).dtype, net.grad(x).dtype, net.hessian(x).dtype, net.hvp(x, x).dtype} == {torch.float32}
    assert_close(net(x).double(), Network.init(4, 5, "tanh")(x.double()), rtol=1e-5, atol=1e-6)


# --- the inner problem ---


def drawn(activation, loss, members=(), n=3, d=4, m=6, seed=0):
    """A random inner problem in which every member and point has its own input, target, scale and ratio; its x0, scale and ratio."""
    net, x0 = Network.init(d, m, activation, members, seed), normal(*members, n, d, seed=seed)
    shape = (*members, n)
    scale, ratio = normal(*shape, seed=seed + 1).exp(), normal(*shape, seed=seed + 2).sigmoid()
    y = normal(*shape, seed=seed + 3)
    y = y.sign() if LOSS[loss].labels else y
    return inner_problem(net, x0, y, scale, ratio, LOSS[loss]), x0, scale, ratio


@pytest.mark.parametrize("members", [(), (2,), (2, 2)])
def test_inner_problem_has_scaled_inputs_and_a_ratio_of_their_length(members):
    problem, x0, scale, ratio = drawn("tanh", "quadratic", members)
    assert problem.shape == (*members, 3)
    assert_close(problem.x, scale[..., None] * x0)
    assert_close(problem.eps, ratio * problem.x.norm(dim=-1))
    one = inner_problem(problem.net, x0, 1.0, 2.0, 0.3)
    assert one.loss is LOSSES["quadratic"] and one.y.shape == one.eps.shape == (*members, 3) and (one.y == 1).all()
    assert_close(one.x, 2 * x0)
    assert_close(one.eps, 0.6 * x0.norm(dim=-1))
    listed = inner_problem(problem.net, x0, [1.0, -1.0, 0.5], [1.0, 2.0, 3.0], (0.1, 0.2, 0.3))
    assert_close(listed.eps, torch.tensor([0.1, 0.4, 0.9]).double() * x0.norm(dim=-1))
    assert (listed.y[..., 2] == 0.5).all()


@pytest.mark.parametrize("loss", LOSS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("members", [(), (2,), (2, 2)])
def test_value_gradient_and_hessian_of_the_inner_problem_agree_with_autograd(loss, activation, members):
    problem = drawn(activation, loss, members, seed=20)[0]
    delta, v = normal(*problem.shape, 4, seed=30), normal(*problem.shape, 4, seed=31)
    flat = problem.flat()
    assert flat.net.members == (math.prod(members),) and flat.y.shape == flat.eps.shape == flat.shape
    rows = lambda t: t.reshape(*flat.shape, *t.shape[len(members) + 1 :])  # noqa: E731
    L, G, r = rows(problem.value(delta)), rows(problem.grad(delta)), rows(problem.residual(delta))
    smooth = problem.net.activation.smooth
    H, Hv = (rows(problem.hessian(delta)), rows(problem.hvp(delta, v))) if smooth else (None, None)
    for k, i in np.ndindex(flat.shape):
        at, here = (lambda t, k=k, i=i: L_at(flat, k, i, t, loss)), rows(delta)[k, i]
        f = f_at(flat.net.W[k], flat.net.a[k], activation, flat.x[k, i] + here)
        assert_close(L[k, i], at(here), **EXACT)
        assert_close(r[k, i], slopes(lambda f, y=flat.y[k, i]: ELL[loss](f, y), f)[0], **EXACT)
        assert_close(G[k, i], torch.func.grad(at)(here), **EXACT)
        if smooth:
            expected = autograd_hessian(at, here)
            assert_close(H[k, i], expected, rtol=1e-9, atol=1e-9)
            assert_close(Hv[k, i], expected @ rows(v)[k, i], rtol=1e-9, atol=1e-9)
    if smooth:
        differences = (problem.grad(delta + STEP * v) - problem.grad(delta - STEP * v)) / (2 * STEP)
        assert_close(problem.hvp(delta, v), differences, rtol=1e-6, atol=1e-5)


def test_flat_problem_and_some_of_its_members_are_the_same_problem():
    problem = drawn("softplus", "quadratic", (2, 3), seed=40)[0]
    delta = normal(2, 3, 3, 4, seed=41)
    flat = problem.flat()
    assert_close(flat.value(delta.view(6, 3, 4)), problem.value(delta).view(6, 3))
    assert_close(flat.flat().x, flat.x)
    some = torch.tensor([4, 1])
    assert_close(flat.members(some).grad(delta.view(6, 3, 4)[some]), problem.grad(delta).view(6, 3, 4)[some])
    single = drawn("tanh", "logistic", seed=42)[0]
    assert_close(single.flat().hessian(delta[0, 0][None])[0], single.hessian(delta[0, 0]))


# --- input that is not as it should be ---

NET, X = Network.init(3, 4, "tanh", members=(2,)), normal(5, 3)
BENT = Network.init(3, 4, "relu")


def made(**wrong):
    return lambda: inner_problem(**{"net": NET, "x0": X, "y": 1.0, **wrong})


WRONG = [
    *((made(**{name: bad}), rf"^{name} must be a finite number above 0.*pass, for example, {name}=1\.0")
      for name in ("scale", "ratio") for bad in (0, -1.0, math.nan, math.inf, True, "1", None)),
    *((made(**{name: bad}), rf"^{name} must be above 0 everywhere, got (0|-2): pass, for example, {name}=1\.0")
      for name in ("scale", "ratio") for bad in (torch.zeros(5), [1.0, 2, 3, -2, 1], torch.tensor(0.0))),
    *((made(**{name: torch.full((5,), bad)}), rf"^{name} holds NaN or infinite values: pass finite numbers")
      for name in ("y", "scale", "ratio") for bad in (math.nan, math.inf)),
    *((made(**{name: bad}), rf"^{name} must be a number or broadcast to \(\*members, n\) = \(2, 5\).*pass {name}=1\.0")
      for name in ("y", "scale", "ratio") for bad in (torch.ones(3), torch.ones(2), torch.ones(3, 2, 5))),
    (made(y="1"), r"^y must be a number or broadcast .* got '1': pass y=1\.0"),
    (made(y=None), r"^y must be a number or broadcast .* got None: pass y=1\.0"),
    (made(x0=torch.cat([X, torch.zeros(1, 3).double()])), "^x0 holds a point at the origin.*leave it out"),
    (made(x0=X[:, :2]), "^x0 must have shape.*put the input dimension d = 3 last"),
    (made(x0=X.expand(3, 5, 3)), r"^x0 has leading axes \(3,\).*pass \(n, d\) to share"),
    (made(x0=X.float()), r"^x0 is torch.float32 .*convert it with x0.to\(torch.float64\)"),
    (made(x0=X * math.nan), "^x0 holds NaN"),
    *((made(loss=loss, y=bad), rf"^y must be -1 or \+1 for the {loss} loss: pass y\.sign\(\), or loss='quadratic'")
      for loss in ("logistic", "margin") for bad in (0.5, 0, torch.tensor([1.0, -1, 1, 1, 2]))),
    (made(loss="hinge"), r"^loss must be one of \['logistic', 'margin', 'quadratic'\], got 'hinge': pass 'quadratic' \(\(f - y\)"),
    (made(loss=None), "^loss must be one of .* got None"),
    (lambda: Network.init(3, 4, "sine"), r"^activation must be one of \['quadratic', 'relu', 'softplus', 'tanh'\], got 'sine': pass 'relu' \(max"),
    (lambda: Network.init(0, 4), "^d must be a whole number of at least 1, got 0: pass an int"),
    (lambda: Network(NET.W, NET.a[0], NET.activation), r"^a must be a tensor of shape \(\*members, m\).*pass one number a neuron"),
    (lambda: NET(X[:, :2]), "^x must have shape .*put the input dimension d = 3 last"),
    (lambda: NET.grad(X[0]), "^x must have shape .*put the input dimension d = 3 last"),
    (lambda: NET.hvp(X, X[:, :2]), "^v must have shape .*put the input dimension d = 3 last"),
    (lambda: NET.hessian(X.expand(3, 5, 3)), "^x has leading axes .*to share the points"),
    (lambda: BENT.hvp(X, X), "^activation 'relu' has a kink.*take 'tanh', 'softplus' or 'quadratic', or curvature.smallest_element"),
    (lambda: BENT.hessian(X), "^activation 'relu' has a kink.*take 'tanh', 'softplus' or 'quadratic', or curvature.smallest_element"),
    (lambda: inner_problem(BENT, X, 1.0).hvp(X, X), "^activation 'relu' has a kink"),
    (lambda: inner_problem(BENT, X, 1.0).hessian(X), "^activation 'relu' has a kink"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "says"), WRONG, ids=[f"{k}: {says[1:20]}" for k, (_, says) in enumerate(WRONG)])
def test_bad_input_gets_one_sentence_with_the_remedy(call, says):
    with pytest.raises(ValueError, match=says):
        call()
