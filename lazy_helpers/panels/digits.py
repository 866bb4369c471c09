"""The embedded digits as a page carries them: whole numbers in base64, of the sizes that the playground offers."""

import base64
from functools import cache

SIDES = (4, 6, 8)


@cache
def packed():
    """`{"labels": "0110...", "train": how many come first, "pixels": {d: base64}}`, training images before test images.

    At side 8 a pixel is one of 17 grey levels; bilinear resizing to 4 x 4 and 6 x 6 takes means with weights in quarters and
    36ths, so every pixel of every size is a whole number of its smallest part: one byte each, two (low, high) at side 6. Images
    of length 1 need no scale.
    """
    import torch  # here, as scikit-learn behind load_binary: half a second that no other panel needs

    from ..data import load_binary

    labels, pixels = "", {}
    for side in SIDES:
        parts = [load_binary("digits", None if side == 8 else side, split=split) for split in ("train", "test")]
        parts_of_one = {4: 64, 6: 576, 8: 16}[side]
        exact = parts_of_one * torch.cat([part.X for part in parts]).double()
        whole = exact.round()
        if not torch.allclose(exact, whole, rtol=0, atol=1e-3):
            raise ValueError(f"The digits at side {side} are no multiples of 1/{parts_of_one}: pack them otherwise.")
        labels = "".join("01"[int(label > 0)] for part in parts for label in part.y)
        kind = "<u1" if parts_of_one < 256 else "<u2"
        pixels[str(side * side)] = base64.b64encode(whole.numpy().astype(kind).tobytes()).decode()
    return {"labels": labels, "train": len(parts[0].y), "pixels": pixels}
