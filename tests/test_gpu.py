"""The same numbers on a GPU as on the CPU: draws bit for bit, the rest to rounding."""

import pytest
import torch
from reference import normal, random_signs

import lazy_helpers as lh
from lazy_helpers import lemmas, theorem

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here"),
]


@pytest.fixture(params=[False, True], ids=["no bias", "bias"])
def pair(request):
    """The same ensemble on either device, in float64, with points and labels for both."""
    how = dict(d=12, m=300, members=3, seed=2, bias=request.param, dtype=torch.float64)
    X, y = torch.nn.functional.normalize(normal(60, 12), dim=-1), random_signs(60)
    return lh.TwoLayerNet.init(**how), lh.TwoLayerNet.init(**how, device="cuda"), X, y


def same(gpu, cpu, tolerance=1e-10):
    assert gpu.device.type == "cuda"
    torch.testing.assert_close(gpu.cpu(), cpu, rtol=tolerance, atol=tolerance, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_seed_names_the_same_network(dtype):
    cpu, gpu = (lh.TwoLayerNet.init(5, 7, members=2, seed=1, bias=True, device=d, dtype=dtype) for d in ("cpu", "cuda"))
    assert torch.equal(cpu.weights, gpu.weights.cpu()) and torch.equal(cpu.a, gpu.a.cpu())
    assert gpu.W.dtype == dtype and gpu.W.device.type == "cuda"


def test_value_gradient_and_ball_agree(pair):
    cpu, gpu, X, _ = pair
    same(gpu(X.cuda()), cpu(X))
    same(gpu.grad(X.cuda()), cpu.grad(X))
    far = cpu.weights + 0.1 * normal(*cpu.weights.shape)
    balls = lh.LazyBall(gpu.weights, 3.0), lh.LazyBall(cpu.weights, 3.0)
    same(*(ball.project(far.to(ball.W0.device)) for ball in balls))
    same(*(ball.rescaled(far.to(ball.W0.device)).distance for ball in balls))


def test_flips_agree(pair):
    cpu, gpu, X, _ = pair
    one, other = lh.smallest_flip(gpu, X.cuda()), lh.smallest_flip(cpu, X)
    assert torch.equal(one.found.cpu(), other.found) and bool(other.found.any())
    for name in ("eta", "norm", "value", "grad_norm"):
        same(getattr(one, name), getattr(other, name), 1e-9)


def test_training_agrees(pair):
    cpu, gpu, X, y = pair
    how = dict(C0=(0.5, 3.0, 1e6), lr=0.5, batch_size=16, max_epochs=20, progress=False)
    one, other = lh.train_sgd(gpu, X.cuda(), y.cuda(), **how), lh.train_sgd(cpu, X, y, **how)
    for c in other:
        assert torch.equal(one[c].steps.cpu(), other[c].steps) and torch.equal(one[c].left.cpu(), other[c].left)
        same(one[c].net.weights, other[c].net.weights, 1e-8)
        same(one[c].train_loss, other[c].train_loss, 1e-8)


@pytest.mark.parametrize("exit", ["step", "epoch"])
def test_members_that_leave_one_by_one_agree(exit):
    """Each departure changes the captured graph."""
    cpu = lh.TwoLayerNet.init(12, 100, members=6, seed=2, dtype=torch.float64)
    gpu = cpu.to("cuda")
    X = lh.unit_sphere(200, 12, seed=2).double()
    y = X[:, 0].sign()
    how = dict(C0=(0.5, 1.0, 2.0), lr=0.3, batch_size=16, max_epochs=60, exit=exit, progress=False)
    one, other = lh.train_sgd(gpu, X.cuda(), y.cuda(), **how), lh.train_sgd(cpu, X, y, **how)
    assert len(set(other[2.0].steps.tolist())) > 1
    for c in other:
        assert torch.equal(one[c].steps.cpu(), other[c].steps) and torch.equal(one[c].left.cpu(), other[c].left)
        same(one[c].net.weights, other[c].net.weights, 1e-8)


def test_pgd_agrees(pair):
    cpu, gpu, X, y = pair
    for box in (None, (-0.9, 0.95)):
        where = X.clamp(-0.9, 0.95)
        same(lh.pgd(gpu, where.cuda(), y.cuda(), 0.3, box=box), lh.pgd(cpu, where, y, 0.3, box=box), 1e-7)


def test_float32_agrees_to_float32_rounding():
    """Full float32 products, not a GPU's shortened ones."""
    net, X = lh.TwoLayerNet.init(100, 5000, seed=3), lh.unit_sphere(40, 100, seed=3)
    gpu = net.to("cuda")
    same(gpu(X.cuda()), net(X), 1e-4)
    one, other = lh.smallest_flip(gpu, X.cuda()), lh.smallest_flip(net, X)
    relative = (one.eta.cpu() - other.eta).abs() * other.value.abs() / (other.eta * (1 + other.value.abs()))
    assert torch.equal(one.found.cpu(), other.found) and float(relative.max()) < 1e-4


def test_the_lemmas_and_the_theorem_agree():
    cpu = lh.TwoLayerNet.init(30, 200, members=2, seed=5, dtype=torch.float64)
    gpu, x = cpu.to("cuda"), torch.nn.functional.normalize(lh.unit_sphere(3, 30).double(), dim=-1)
    eta = torch.tensor([0.02, 0.1], dtype=torch.float64)
    for measure in (
        lambda net, x: lemmas.value_range(net, x, 3.0),
        lambda net, x: lemmas.smallest_gradient(net, x, 3.0),
        lambda net, x: (lemmas.sign_changes(net, x, 3.0), lemmas.difference_bound(net, x, 3.0, 0.2)),
        lambda net, x: theorem.flip_bound(net, x[0], 3.0, eta.to(x.device)),
        lambda net, x: (theorem.published_bound(net, x[0], 3.0, eta),),
    ):
        for one, other in zip(measure(gpu, x.cuda()), measure(cpu, x), strict=True):
            same(one, other, 1e-6)


def test_points_on_another_device_are_refused():
    gpu = lh.TwoLayerNet.init(3, 4, device="cuda")
    with pytest.raises(ValueError, match="x is on cpu but the network is on cuda"):
        gpu(lh.unit_sphere(2, 3))
    with pytest.raises(ValueError, match="device='cuda:99'"):
        lh.TwoLayerNet.init(3, 4, device="cuda:99")


@pytest.mark.parametrize("project", ["step", "epoch"])
def test_adversarial_training_agrees(pair, project):
    cpu, gpu, X, y = pair
    how = dict(eps=0.1, C0=2.0, lr=0.5, batch_size=16, attack_steps=4, max_epochs=4, project=project, progress=False)
    one, other = lh.train_adversarial(gpu, X.cuda(), y.cuda(), **how), lh.train_adversarial(cpu, X, y, **how)
    same(one.net.weights, other.net.weights, 1e-8)
    torch.testing.assert_close(one.history.loss, other.history.loss, rtol=0, atol=1e-8)


def test_the_strongest_attack_and_both_bounds_agree(pair):
    cpu, gpu, X, y = pair
    one, other = (
        lh.strongest_attack(net, x, z, 0.2, steps=10) for net, x, z in ((gpu, X.cuda(), y.cuda()), (cpu, X, y))
    )
    same(one.margin, other.margin, 1e-6)
    one, other = (
        lh.bracket(net, x, z, (0.05, 0.2), steps=10) for net, x, z in ((gpu, X.cuda(), y.cuda()), (cpu, X, y))
    )
    same(one.certified, other.certified, 1e-9)
    same(one.minimal.norm, other.minimal.norm, 1e-5)
