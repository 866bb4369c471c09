"""Input checks for the public boundary: one sentence that names the argument, what it got and the remedy."""

from __future__ import annotations

import math
import numbers

import torch
from torch import Tensor


def check_count(name: str, value: int, at_least: int = 1) -> int:
    """A whole number of at least ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < at_least:
        raise ValueError(
            f"{name} must be a whole number of at least {at_least}, got {value!r}: pass an int such as {name}={max(at_least, 1)}."
        )
    return int(value)


def check_flag(name: str, value: bool) -> bool:
    """True or False, and no number that stands for one."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {value!r}: pass {name}=True.")
    return value


def check_choice(name: str, value: str, choices: dict[str, str]) -> str:
    """One of the names in ``choices``, which says of each what it does."""
    if not isinstance(value, str) or value not in choices:
        says = ", ".join(f"{choice!r} ({what})" for choice, what in choices.items())
        raise ValueError(f"{name} must be one of {sorted(choices)}, got {value!r}: pass {says}.")
    return value


def check_seed(seed: int) -> int:
    """A whole number that seeds a generator."""
    if check_count("seed", seed, at_least=0) >= 2**62:
        raise ValueError(f"seed must be below 2**62, got {seed}: pass a smaller one, such as seed=0.")
    return int(seed)


def check_weights(name: str, W: Tensor) -> Tensor:
    """Weights ``(*members, m, d)`` of floating point numbers, none of the axes empty."""
    if not isinstance(W, Tensor) or W.ndim < 2 or not W.is_floating_point() or W.numel() == 0:
        got = f"{W.dtype} of shape {tuple(W.shape)}" if isinstance(W, Tensor) else type(W).__name__
        raise ValueError(
            f"{name} must be a floating point tensor of shape (*members, m, d), got {got}: pass net.W or net.weights."
        )
    return W


def check_neurons(name: str, part: Tensor, W: Tensor) -> None:
    """One number a neuron, ``(*members, m)``, in the dtype and on the device of W."""
    if not isinstance(part, Tensor) or part.shape != W.shape[:-1]:
        got = tuple(part.shape) if isinstance(part, Tensor) else type(part).__name__
        raise ValueError(
            f"{name} must be a tensor of shape (*members, m) = {tuple(W.shape[:-1])} to go with W, got {got}: pass one number a neuron."
        )
    if part.dtype != W.dtype or part.device != W.device:
        raise ValueError(
            f"{name} is {part.dtype} on {part.device} but W is {W.dtype} on {W.device}: convert the whole network with net.to(...)."
        )


def check_positive(name: str, value: float) -> float:
    """A finite number above zero."""
    try:
        number = math.nan if isinstance(value, (bool, str)) else float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}: pass, for example, {name}=1.0.")
    return number


def check_per_member(name: str, value, members: tuple[int, ...]) -> Tensor:
    """A number above zero, or one for each member; returned flat, ``(K,)`` float64."""
    many = math.prod(members)
    if not isinstance(value, (list, tuple, Tensor)) or (isinstance(value, Tensor) and value.ndim == 0):
        return torch.full((many,), check_positive(name, value), dtype=torch.float64)
    shape = tuple(value.shape) if isinstance(value, Tensor) else (len(value),)
    if shape != members:
        raise ValueError(
            f"{name} must be a number or one for each member, of shape {members}, got shape {shape}: pass {name}=1.0, or a tensor of that shape."
        )
    each = value.flatten().tolist() if isinstance(value, Tensor) else value
    return torch.tensor([check_positive(name, one) for one in each], dtype=torch.float64)


def check_budget(eps, members: tuple[int, ...]) -> float | Tensor:
    """The budget of an attack: a number, or one for each member as ``(K,)`` float64."""
    one = not isinstance(eps, (list, tuple, Tensor)) or (isinstance(eps, Tensor) and eps.ndim == 0)
    return check_positive("eps", eps) if one else check_per_member("eps", eps, members)


def check_device(device: str | torch.device | None) -> torch.device:
    """The device, if this machine has it; ``None`` means the CPU."""
    try:
        found = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device must be 'cpu' or 'cuda', got {device!r}: pass device='cpu'.") from None
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={str(device)!r} was asked for, but torch finds no GPU here: pass device='cpu' or install a CUDA build of torch."
        )
    if found.type == "cuda" and found.index is not None and found.index >= torch.cuda.device_count():
        raise ValueError(
            f"device={str(device)!r} was asked for, but this machine has {torch.cuda.device_count()} GPU(s): pass device='cuda:0'."
        )
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be 'cpu' or 'cuda', got {device!r}: pass device='cpu'.")
    return found


def device_named(name: str) -> torch.device:
    """The device of that name; ``"auto"`` is the GPU where there is one."""
    return check_device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


def check_members(members: int | tuple[int, ...]) -> tuple[int, ...]:
    """The ensemble's leading axes as a tuple."""
    axes = tuple(members) if isinstance(members, (tuple, list)) else (members,)
    return tuple(check_count("members", size) for size in axes)


def check_points(name: str, x: Tensor, d: int, members: tuple[int, ...], like: Tensor) -> Tensor:
    """Points ``(n, d)`` or ``(*members, n, d)``, finite, in the network's dtype and on its device."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {type(x).__name__}: wrap it in torch.as_tensor(...).")
    if x.ndim < 2 or x.shape[-1] != d:
        raise ValueError(
            f"{name} must have shape (n, {d}) or (*members, n, {d}), got {tuple(x.shape)}: put the input dimension d = {d} last."
        )
    if x.ndim > 2 and x.shape[:-2] != members:
        raise ValueError(
            f"{name} has leading axes {tuple(x.shape[:-2])} but the network has members {members}: pass (n, d) to share the points among members."
        )
    if x.shape[-2] == 0:
        raise ValueError(f"{name} holds no points, got shape {tuple(x.shape)}: pass at least one row.")
    if x.device != like.device:
        raise ValueError(
            f"{name} is on {x.device} but the network is on {like.device}: move it with {name}.to({str(like.device)!r})."
        )
    if x.dtype != like.dtype:
        raise ValueError(
            f"{name} is {x.dtype} but the network is {like.dtype}: convert it with {name}.to({like.dtype})."
        )
    check_finite(name, x)
    return x


def check_finite(name: str, x: Tensor) -> Tensor:
    """No NaN and no infinity."""
    if not bool(torch.isfinite(x).all()):
        raise ValueError(f"{name} holds NaN or infinite values: clean it, for example with torch.nan_to_num({name}).")
    return x


def check_labels(name: str, y: Tensor, n: int, like: Tensor) -> Tensor:
    """Labels ``(n,)`` in {-1, +1}, returned in the network's dtype."""
    if not isinstance(y, Tensor) or y.shape != (n,):
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"{name} must be a tensor of shape ({n},), one label a point, got {got}: pass one label for each row of the points."
        )
    y = y.to(like)
    if not bool((y.abs() == 1).all()):
        raise ValueError(
            f"{name} must hold -1 and +1 only, got values such as {y[y.abs() != 1][0].item():g}: turn labels 0/1 into 2 * {name} - 1."
        )
    return y


def check_box(box: tuple[float, float], x: Tensor) -> None:
    """A pair (low, high) between which every coordinate of x lies."""
    pair = isinstance(box, (tuple, list)) and len(box) == 2 and all(isinstance(end, numbers.Real) for end in box)
    if not pair or not box[0] < box[1] or not bool((x >= box[0]).all() and (x <= box[1]).all()):
        raise ValueError(
            f"box must be (low, high) with every coordinate of x inside, got {box!r}: pass box=None or clip x first."
        )


def check_unit(name: str, x: Tensor) -> Tensor:
    """Rows of length 1 up to rounding, returned with that length in their dtype."""
    length = x.double().norm(dim=-1)
    if not bool(((length - 1).abs() <= 1e-5).all()):
        raise ValueError(
            f"{name} must have rows of length 1, where the statement assumes it, got lengths from {length.min():.4g} to "
            f"{length.max():.4g}: pass torch.nn.functional.normalize({name}), or load data with normalize=True."
        )
    return (x.double() / length.unsqueeze(-1)).to(x)


def check_gamma(gamma: float) -> float:
    """A probability of failure strictly between 0 and 1."""
    number = check_positive("gamma", gamma)
    if number >= 1:
        raise ValueError(f"gamma must lie between 0 and 1, got {gamma!r}: pass the probability of failure, gamma=0.01.")
    return number


def check_reach(R: float) -> float:
    """A perturbation radius below ||x|| = 1: a larger one can reach the origin, where f is 0."""
    number = check_positive("R", R)
    if number >= 1:
        raise ValueError(f"R must be below ||x|| = 1, got {R!r}: pass a perturbation radius such as R=0.1.")
    return number


def check_bare(net) -> None:
    """A network without biases, as the paper's statements have it."""
    if net.b is not None:
        raise ValueError("net has hidden biases, the statement is about networks without: pass net.replace(b=None).")
