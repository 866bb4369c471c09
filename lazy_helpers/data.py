"""Binary data: MNIST 0 against 1 at any resolution, the embedded 8x8 digits, points on the unit sphere."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import math
import os
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import pooch
import torch
from torch import Tensor

from .checks import check_count, check_seed

MNIST = {  # the four canonical files and their SHA-256 (LeCun, Cortes, Burges 1998)
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
POINTS = 1_000_003  # offset of the points' seeds, so that they do not share a stream with a network's weights
REMEDY = "put the four canonical MNIST .gz files into the folder mnist/ of $LAZY_HELPERS_DATA, or go online so that they can be downloaded"


@dataclasses.dataclass(frozen=True, eq=False)
class BinaryData:
    """Points ``X (n, size * size)`` in [0, 1] (or of unit norm), row by row, and labels ``y (n,)``: 0 is -1, 1 is +1."""

    X: Tensor
    y: Tensor


def load_binary(
    name: str = "digits",
    size: int | None = None,
    normalize: bool = False,
    antialias: bool = False,
    split: str = "train",
    folder: str | os.PathLike | None = None,
) -> BinaryData:
    """Handwritten 0 against 1, at ``size`` x ``size`` pixels (2 to 28; ``None`` keeps the native size), float32.

    ``"digits"``: scikit-learn's 8x8 digits, 241 for training and 119 for testing (every third one of each class), no
    download. ``"mnist"``: 12,665 and 2,115 images, from ``mnist/`` in ``folder`` if one is passed (and nowhere else then);
    otherwise in ``$LAZY_HELPERS_DATA``, else in the user's cache, else downloaded there. Every file's SHA-256 is checked. Resizing is bilinear; ``antialias=False`` is what the
    published figures used. ``normalize=True`` gives ||x|| = 1. Raises ``ValueError`` for a name, size or split that is
    not there, for a damaged or missing file, and where an image has no ink left to normalise.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}: any other split is empty.")
    if size is not None and check_count("size", size, at_least=2) > 28:
        raise ValueError(f"size must be at most 28 pixels a side, got {size}: pass size=28 for full resolution.")
    if name == "digits":
        images, labels = _digits(split)
    elif name == "mnist":
        images, labels = _mnist(split, None if folder is None else Path(folder))
    else:
        raise ValueError(f"name must be 'digits' or 'mnist', got {name!r}: 'digits' needs no download.")
    if size is not None and size != images.shape[-1]:
        images = torch.nn.functional.interpolate(images[:, None], (size, size), mode="bilinear", antialias=antialias)[
            :, 0
        ].clamp(0, 1)
    X = images.flatten(1)
    if normalize:
        norm = X.norm(dim=1, keepdim=True)
        if not bool((norm > 0).all()):
            raise ValueError(
                f"normalize=True needs ink in every image, but {int((norm == 0).sum())} are blank at size={size}: use a larger size or antialias=True."
            )
        X = X / norm
    return BinaryData(X.clone(), (2 * labels - 1).to(X.dtype))  # a copy: the images are kept for the next call


def unit_sphere(n: int, d: int, seed: int = 0) -> Tensor:
    """``n`` points uniform on the unit sphere of R^d, ``(n, d)`` float32."""
    check_count("n", n), check_count("d", d)
    seed = check_seed(seed)
    return torch.nn.functional.normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(POINTS + seed)))


def mnist_folder(folder: Path | None = None) -> Path:
    """Where MNIST is: ``folder``, else ``$LAZY_HELPERS_DATA``, else the user's cache, each with a folder ``mnist`` in it."""
    named = os.environ.get("LAZY_HELPERS_DATA")
    if folder is not None:
        return folder / "mnist"
    if named and (Path(named) / "mnist").is_dir():
        return Path(named) / "mnist"
    return Path(pooch.os_cache("lazy_helpers")) / "mnist"


def mnist_available(folder: Path | None = None) -> bool:
    """Whether the four files are on this machine (they are checked when loaded)."""
    return all((mnist_folder(folder) / file).is_file() for file in MNIST)


@lru_cache(maxsize=2)
def _digits(split: str) -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits  # costs half a second, and only this function needs it

    images, labels = load_digits(n_class=2, return_X_y=True)
    rank = np.where(labels == 0, np.cumsum(labels == 0), np.cumsum(labels == 1))  # 1, 2, 3, ... within each class
    chosen = (rank % 3 == 0) == (split == "test")
    return torch.tensor(images[chosen] / 16, dtype=torch.float32).view(-1, 8, 8), torch.tensor(labels[chosen])


def _mnist(split: str, folder: Path | None) -> tuple[Tensor, Tensor]:
    prefix = "train" if split == "train" else "t10k"
    images, labels = (
        _read_idx(_mnist_file(f"{prefix}-{part}-ubyte.gz", folder)) for part in ("images-idx3", "labels-idx1")
    )
    chosen = labels < 2
    return torch.tensor(images[chosen], dtype=torch.float32) / 255, torch.tensor(labels[chosen].astype(np.int64))


def _mnist_file(file: str, folder: Path | None) -> Path:
    """The path of a file that is there and unaltered, downloaded if need be."""
    path = mnist_folder(folder) / file
    if not path.is_file():
        if folder is not None:
            raise ValueError(f"{path} is missing: {REMEDY}.")
        path = _download(file)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != MNIST[file]:
        raise ValueError(
            f"{path} is truncated or altered (SHA-256 {found[:12]}..., expected {MNIST[file][:12]}...): delete it and run again, or {REMEDY}."
        )
    return path


def _download(file: str) -> Path:
    """Into the user's cache. pooch writes to a temporary file and moves it only once its hash is right."""
    target = Path(pooch.os_cache("lazy_helpers")) / "mnist"
    failures = []
    for mirror in MIRRORS:
        try:
            return Path(pooch.retrieve(mirror + file, known_hash=f"sha256:{MNIST[file]}", fname=file, path=target))
        except Exception as error:  # whatever a mirror does wrong, the next one gets its turn
            failures.append(f"{mirror}: {type(error).__name__}")
    raise ValueError(f"{file} is not on this machine and no mirror gave it ({'; '.join(failures)}): {REMEDY}.")


@lru_cache(maxsize=4)
def _read_idx(path: Path) -> np.ndarray:
    """The idx format: two zero bytes, the type (8: unsigned byte), the number of axes, the sizes, the values."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is no readable gzip file ({error}): delete it and run again, or {REMEDY}.") from None
    shape = tuple(np.frombuffer(raw, ">i4", count=raw[3], offset=4))
    if raw[2] != 8 or len(raw) != 4 + 4 * len(shape) + math.prod(shape):
        raise ValueError(f"{path} is no idx file of bytes with axes {shape}: delete it and run again, or {REMEDY}.")
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def fingerprint(name: str) -> dict[str, str]:
    """SHA-256 of what a data set is made of: MNIST's files (checked on loading), or the embedded digits' arrays."""
    if name == "mnist":
        return dict(MNIST)
    return {
        f"digits-{split}": hashlib.sha256(b"".join(part.numpy().tobytes() for part in _digits(split))).hexdigest()
        for split in ("train", "test")
    }
