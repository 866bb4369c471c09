"""Every wrong input a user would try gives one sentence: a ValueError that names the argument and the remedy."""

import math

import numpy as np
import pytest
import torch

import lazy_helpers as lh

NET = lh.TwoLayerNet.init(3, 4)
PAIR = lh.TwoLayerNet.init(3, 4, members=2)
BALL = lh.LazyBall(NET.W, 1.0)
X, Y = lh.unit_sphere(6, 3), torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0, -1.0])
NAN, INF = X.clone(), X.clone()
NAN[2, 1], INF[0, 0] = math.nan, math.inf
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")


def init(**wrong):
    return lambda: lh.TwoLayerNet.init(**{"d": 3, "m": 4, **wrong})


def net(**wrong):
    return lambda: lh.TwoLayerNet(**{"W": NET.W, "a": NET.a, **wrong})


def train(**wrong):
    return lambda: lh.train_sgd(**{"net": NET, "X": X, "y": Y, "max_epochs": 1, "progress": False, **wrong})


def attack(**wrong):
    return lambda: lh.pgd(**{"net": NET, "x": X, "y": Y, "eps": 0.1, **wrong})


def harden(**wrong):
    return lambda: lh.train_adversarial(**{"net": NET, "X": X, "y": Y, "max_epochs": 1, "progress": False, **wrong})


def strongest(**wrong):
    return lambda: lh.strongest_attack(**{"net": NET, "x": X, "y": Y, "eps": 0.1, "steps": 1, **wrong})


def minimal(**wrong):
    return lambda: lh.minimal_perturbation(**{"net": NET, "x": X, "y": Y, **wrong})


def both(**wrong):
    return lambda: lh.bracket(**{"net": NET, "x": X, "y": Y, "eps": 0.1, **wrong})


def load(**wrong):
    return lambda: lh.load_binary(**wrong)


def cases(name, make, *wrongs, key=None):
    """One case for each wrong value of an argument."""
    return [
        pytest.param(make(**{key or name: wrong}), name, id=f"{make.__name__}-{name}-{wrong!r:.30}") for wrong in wrongs
    ]


COUNTS = (0, -1, 1.5, 2.0, True, "3", None)
SEEDS = (-1, 1.5, True, "0", None, 2**70)
POSITIVE = (0, -1.0, math.nan, math.inf, "1", True, None)
LABELS = {
    "0/1": (Y + 1) / 2,
    "bools": Y > 0,
    "0.5": Y / 2,
    "NaN": Y * math.nan,
    "too few": Y[:5],
    "a column": Y[:, None],
    "a list": Y.tolist(),
    "numpy": Y.numpy(),
    "none": Y[:0],
}
POINTS = {
    "too wide": lh.unit_sphere(6, 4),
    "too narrow": lh.unit_sphere(6, 2),
    "one vector": X[0],
    "transposed": X.T,
    "members that are not there": X.expand(2, 6, 3),
    "an axis of one": X[None],
    "an empty split": X[:0],
    "NaN pixels": NAN,
    "infinite pixels": INF,
    "double": X.double(),
    "whole numbers": torch.ones(6, 3, dtype=torch.long),
    "numpy": X.numpy(),
    "a list": X.tolist(),
    "nothing": None,
}
USES = {
    "value": lambda x: NET(x),
    "grad": lambda x: NET.grad(x),
    "flip": lambda x: lh.smallest_flip(NET, x),
    "pgd": lambda x: lh.pgd(NET, x, Y, 0.1),
    "loss": lambda x: lh.logistic_loss(NET, x, Y),
    "train": lambda x: lh.train_sgd(NET, x, Y, max_epochs=1),
    "harden": lambda x: lh.train_adversarial(NET, x, Y, max_epochs=1),
    "strongest": lambda x: lh.strongest_attack(NET, x, Y, 0.1),
    "minimal": lambda x: lh.minimal_perturbation(NET, x, Y),
    "certified": lambda x: lh.certified_radius(NET, x, Y),
    "bracket": lambda x: lh.bracket(NET, x, Y, 0.1),
}
WEIGHTS = {
    "another width": torch.ones(5, 3),
    "members": torch.ones(2, 4, 3),
    "numpy": NET.W.numpy(),
    "a list": NET.W.tolist(),
}

WRONG = [
    *cases("d", init, *COUNTS),
    *cases("m", init, *COUNTS),
    *cases("members", init, 0, -1, 2.0, True, "3", None, (2, 0), (2, 1.5), (True,)),
    *cases("seed", init, *SEEDS),
    *cases("device", init, "gpu", "meta", 1.5, "", "mps", "cuda:99"),
    pytest.param(init(device="cuda"), "device", id="init-device-cuda", marks=NO_GPU),
    *cases("dtype", init, torch.int64, torch.complex64, "float32", np.float32, float, None),
    *cases(
        "W", net, torch.ones(4), torch.ones(4, 3, dtype=torch.long), NET.W.numpy(), NET.W.tolist(), torch.ones(0, 3)
    ),
    *cases("a", net, torch.ones(5), torch.ones(4, 1), torch.ones(2, 4), torch.tensor(1.0)),
    *cases("b", net, torch.ones(3), torch.ones(1, 4)),
    pytest.param(lambda: NET.replace(W=torch.ones(5, 3)), "a", id="replace-other-width"),
    pytest.param(lambda: PAIR.replace(W=NET.W), "a", id="replace-without-members"),
    *(
        pytest.param(lambda use=use, x=x: use(x), "x", id=f"{what}-{how}")
        for what, use in USES.items()
        for how, x in POINTS.items()
    ),
    pytest.param(lambda: PAIR(X.expand(3, 6, 3)), "x", id="value-three-members-for-two"),
    pytest.param(lambda: lh.smallest_flip(PAIR, X[None]), "x", id="flip-one-member-for-two"),
    pytest.param(lambda: lh.train_sgd(PAIR, X.expand(2, 6, 3), Y), "X", id="train-points-for-each-member"),
    *(
        pytest.param(lambda use=use, y=y: use(y), "y", id=f"{what}-labels-{how}")
        for what, use in {
            "train": lambda y: lh.train_sgd(NET, X, y, max_epochs=1),
            "pgd": lambda y: lh.pgd(NET, X, y, 0.1),
            "loss": lambda y: lh.logistic_loss(NET, X, y),
            "harden": lambda y: lh.train_adversarial(NET, X, y, max_epochs=1),
            "strongest": lambda y: lh.strongest_attack(NET, X, y, 0.1),
            "minimal": lambda y: lh.minimal_perturbation(NET, X, y),
            "certified": lambda y: lh.certified_radius(NET, X, y),
        }.items()
        for how, y in LABELS.items()
    ),
    *cases("C0", train, *POSITIVE, (), (10.0, 0.0), (10.0, -1), ("10",), (True,), torch.ones(2), np.array([1.0, 2.0])),
    *cases("lr", train, *POSITIVE),
    *cases("batch_size", train, *COUNTS),
    *cases("max_epochs", train, *COUNTS),
    *cases("seed", train, *SEEDS),
    *cases("exit", train, "steps", "", None, True, 1),
    *cases("eps", attack, *POSITIVE, torch.ones(6)),
    *cases("steps", attack, *COUNTS),
    *cases("restarts", attack, *COUNTS),
    *cases("best", attack, 1, 0, None, "yes"),
    *cases("seed", attack, *SEEDS),
    *(
        case
        for make in (harden, strongest)
        for case in cases("eps", make, *POSITIVE, torch.ones(6), [0.1, 0.2], (0.1,))
    ),
    *cases("eps", both, *POSITIVE, (0.1, -1.0)),
    *cases("C0", harden, *POSITIVE, torch.ones(2), (1.0,)),
    *cases("lr", harden, *POSITIVE),
    *(case for name in ("batch_size", "attack_steps", "max_epochs") for case in cases(name, harden, *COUNTS)),
    *cases("seed", harden, *SEEDS),
    *cases("project", harden, "steps", "", None, True, 1),
    *cases("stop", harden, "early", "", None, True, 1, ["stable"]),
    *cases("warm_start", harden, 1, None, "yes"),
    *cases("box", harden, (1, 0), (0.5, 1), 3),
    *cases("steps", strongest, *COUNTS),
    *cases("restarts", strongest, *COUNTS),
    *cases("box", strongest, (1, 0), (0.5, 1), 3),
    *cases("steps", minimal, *COUNTS),
    *cases("rounds", minimal, -1, 1.5, True, "3", None),
    pytest.param(lambda: lh.train_adversarial(PAIR, X.expand(2, 6, 3), Y), "X", id="harden-points-for-each-member"),
    pytest.param(lambda: lh.train_adversarial(PAIR, X, Y, eps=[0.1]), "eps", id="harden-one-budget-for-two-members"),
    *cases("step_size", attack, *POSITIVE[:-1]),
    *cases(
        "box",
        attack,
        (1, 0),
        (0, 0),
        (0.5, 1),
        3,
        "ab",
        (0,),
        (0, 1, 2),
        (None, 1),
        (math.nan, 1),
        ("0", "1"),
        torch.tensor([-9.0, 9.0]),
    ),
    *(
        pytest.param(lambda C0=C0: lh.LazyBall(NET.W, C0), "C0", id=f"ball-C0-{C0!r}")
        for C0 in (*POSITIVE, torch.ones(2), (1.0,))
    ),
    *(
        pytest.param(lambda W0=W0: lh.LazyBall(W0, 1.0), "W0", id=f"ball-W0-{how}")
        for how, W0 in {
            "vector": torch.ones(4),
            "whole numbers": torch.ones(4, 3, dtype=torch.long),
            "empty": torch.ones(0, 3),
            "numpy": NET.W.numpy(),
            "network": NET,
        }.items()
    ),
    *(
        pytest.param(lambda use=use, W=W: getattr(BALL, use)(W), "W", id=f"ball-{use}-{how}")
        for use in ("deviations", "distance", "contains", "project", "rescaled", "cone_contains")
        for how, W in WEIGHTS.items()
    ),
    *cases("name", load, "MNIST", "cifar", "", None, 1),
    *cases("size", load, 0, 1, -8, 29, 7.5, 8.0, True, "8"),
    *cases("split", load, "validation", "", None, True),
    *(pytest.param(lambda n=n: lh.unit_sphere(n, 3), "n", id=f"sphere-n-{n!r}") for n in COUNTS),
    *(pytest.param(lambda d=d: lh.unit_sphere(3, d), "d", id=f"sphere-d-{d!r}") for d in COUNTS),
    *(pytest.param(lambda seed=seed: lh.unit_sphere(3, 3, seed), "seed", id=f"sphere-seed-{seed!r}") for seed in SEEDS),
]


@pytest.mark.parametrize(("call", "name"), WRONG)
def test_wrong_input_gives_one_sentence_that_names_the_argument_and_the_remedy(call, name):
    with pytest.raises(ValueError) as error:
        call()
    message = str(error.value)
    subject = message.split()[0].split("=")[0]
    assert subject.lower() == name.lower(), message  # points are x to the network and X to training
    assert message.endswith(".") and ": " in message, message  # what is wrong, and after the colon the remedy
    assert "\n" not in message and len(message) < 300, message


def test_weights_of_another_dtype_than_the_signs_are_named():
    with pytest.raises(ValueError, match="^[aW] .*float64"):
        NET.replace(W=NET.W.double())(X.double())


def test_signs_in_a_list_are_named():
    with pytest.raises(ValueError, match="^a "):
        lh.TwoLayerNet(NET.W, [1.0, 1.0, -1.0, 1.0])


def test_a_message_says_what_it_got_and_what_to_do():
    """Three of them in full."""
    for call, sentence in (
        (
            lambda: NET(lh.unit_sphere(6, 4)),
            "x must have shape (n, 3) or (*members, n, 3), got (6, 4): put the input dimension d = 3 last.",
        ),
        (
            lambda: lh.train_sgd(NET, X, (Y + 1) / 2),
            "y must hold -1 and +1 only, got values such as 0: turn labels 0/1 into 2 * y - 1.",
        ),
        (
            lambda: lh.LazyBall(NET.W, -3),
            "C0 must be a finite number above 0, got -3: pass, for example, C0=1.0.",
        ),
    ):
        with pytest.raises(ValueError) as error:
            call()
        assert str(error.value) == sentence


def test_numbers_of_numpy_and_whole_labels_are_welcome():
    """What looks right is right: numpy's integers and floats, labels of whole numbers, a list of radii, a list of axes."""
    assert lh.TwoLayerNet.init(np.int64(3), np.int32(4), members=[np.int64(2)], seed=1).W.shape == (2, 4, 3)
    out = lh.train_sgd(NET, X, Y.long(), C0=[np.float64(1.0), np.float32(2.0), 3], max_epochs=1, batch_size=np.int64(2))
    assert list(out) == [1.0, 2.0, 3.0]
    assert lh.pgd(NET, X, Y.int(), np.float32(0.1), steps=np.int64(2), box=(np.float32(-1), 1)).shape == (6, 3)
    assert lh.load_binary(size=np.int64(4)).X.shape == (241, 16)
    assert lh.LazyBall(NET.W, torch.tensor(2.0)).radius == 1.0
    assert lh.TwoLayerNet.init(3, 4, device=torch.device("cpu")).W.device.type == "cpu"


@pytest.mark.parametrize(
    "call",
    [
        lambda seed: lh.TwoLayerNet.init(3, 4, seed=seed).W,
        lambda seed: lh.unit_sphere(3, 4, seed=seed),
        lambda seed: lh.train_sgd(NET, X, Y, C0=9.0, max_epochs=1, batch_size=2, seed=seed)[9.0].net.W,
    ],
    ids=["init", "sphere", "train"],
)
def test_a_seed_of_numpy_is_welcome(call):
    assert torch.equal(call(np.int64(1)), call(1))
