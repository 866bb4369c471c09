"""Pictures of the inner problem: described, in the page's ink, and with every point where its numbers say."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from lazy_helpers import plots, plots_inner

SIDE = 21


def view(tilt: float = 1.0):
    """L = tilt * first coordinate, with an ascent along the circle to its top and one that leaves the plane."""
    along, t = plots_inner.grid(SIDE), plots_inner.angles(361)
    ascent = np.array([[math.cos(a), math.sin(a)] for a in (2.0, 1.0, 0.0)])
    return plots_inner.View(
        tilt * np.tile(along, (SIDE, 1)), tilt * np.cos(t), [ascent, np.array([[0.2, 0.1], [0.6, 0.0]])]
    )


def drawn():
    yield plots_inner.landscape(
        {"$s = 1$": view(), "$s = 3$": view(3.0)}, ("along", "across"), "Two tilted planes, a description"
    )
    errors = 0.5 ** np.arange(9) * np.array([[1.0], [0.5], [2.0]])
    yield plots_inner.convergence({"loss": {"a": errors**2, "b": errors}, "kappa": {"a": errors, "b": errors}}, {"loss": 0.25, "kappa": 0.5}, "Two panels of errors that fall")  # fmt: skip
    angle = np.linspace(-0.2, 0.2, 41)
    bend = plots_inner.Bend(np.degrees(angle), 1 - np.where(angle < 0, -0.5, 2.0) * angle, 0.5, -2.0)
    yield plots_inner.kink(
        bend, np.array([8.0, -3.0, 3.0]), np.array([8.0, -3.0, 1.0]), "A bend with two slopes beside it"
    )


@pytest.fixture(scope="module")
def pictures():
    return list(drawn())


def test_every_picture_is_described_takes_the_pages_ink_and_comes_out_the_same(pictures):
    for picture, again in zip(pictures, drawn(), strict=True):
        assert len(picture.alt) > 20 and f'aria-label="{picture.alt}"' in picture._repr_mimebundle_()["text/html"]
        assert "currentColor" in picture.svg and plots.INK not in picture.svg
        assert again.svg == picture.svg


def test_grid_and_angles_hold_their_ends_and_the_middle():
    along, t = plots_inner.grid(SIDE), plots_inner.angles(361)
    assert_allclose(along[[0, SIDE // 2, -1]], [-plots_inner.REACH, 0, plots_inner.REACH])
    assert_allclose(t[[0, 180, -1]], [-math.pi, 0, math.pi], atol=1e-12)


def test_a_landscape_marks_iterates_on_its_curve_only_where_they_are_on_the_circle():
    figure, _ = plots_inner.landscape.__wrapped__({"one": view(), "two": view(3.0)}, ("u", "v"), "alt")
    (above, _), (below, other) = np.array(figure.axes).reshape(2, 2)
    curve, on_it, off = below.lines
    assert_allclose(curve.get_ydata(), (np.cos(plots_inner.angles(361)) + 1) / 2, atol=1e-9)
    assert_allclose(on_it.get_xdata(), np.degrees([2.0, 1.0, 0.0]))
    assert_allclose(on_it.get_ydata(), (np.cos([2.0, 1.0, 0.0]) + 1) / 2, atol=1e-4)
    assert len(off.get_xdata()) == 0
    assert_allclose(other.lines[0].get_ydata(), curve.get_ydata(), atol=1e-9)  # its own range
    assert_allclose(above.lines[0].get_xydata(), view().paths[0])


def test_a_landscape_shows_the_disc_and_its_colours_follow_it_not_the_corners():
    far = view()
    far.plane[0, 0] = 1e6  # outside the disc
    figure, _ = plots_inner.landscape.__wrapped__({"one": far}, ("u", "v"), "alt")
    (image,) = figure.axes[0].images
    assert image.get_array().mask[0, 0] and not image.get_array().mask[SIDE // 2, 1]
    assert_allclose(
        image.get_clip_path().get_fully_transformed_path().get_extents().size,
        figure.axes[0].transData.transform([2, 2]) - figure.axes[0].transData.transform([0, 0]),
        rtol=1e-2,
    )
    along = plots_inner.grid(SIDE)
    within = np.abs(along[np.abs(along) <= 1]).max()
    assert_allclose(image.get_clim(), [-within, within])
    assert image.get_extent()[0] < -plots_inner.REACH < image.get_extent()[0] + 2 * plots_inner.REACH / SIDE


def test_convergence_shows_medians_in_a_band_beside_the_panels_own_rate():
    values = np.array([1.0, 2.0, 4.0])[:, None] * 0.1 ** np.arange(4)
    figure, _ = plots_inner.convergence.__wrapped__(
        {"p": {"a": values}, "q": {"a": values}}, {"p": 0.25, "q": 0.5}, "alt"
    )
    for ax, rate in zip(figure.axes, (0.25, 0.5), strict=True):
        median, law = (line.get_ydata() for line in ax.lines)
        assert_allclose(median, 2 * 0.1 ** np.arange(4))
        assert_allclose(law, rate ** np.arange(4))
    (band,) = figure.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert_allclose([heights.min(), heights.max()], [np.percentile([1, 2, 4], 10) * 1e-3, np.percentile([1, 2, 4], 90)])


def test_convergence_draws_errors_of_zero_at_the_bottom_not_nowhere():
    values = np.array([[1.0, 0.0], [1.0, 0.0]])
    figure, _ = plots_inner.convergence.__wrapped__({"p": {"a": values}}, {"p": 0.5}, "alt", least=1e-6)
    assert (figure.axes[0].lines[0].get_ydata() > 0).all() and figure.axes[0].get_ylim()[0] == 1e-6


def test_a_kinks_tangents_meet_at_its_top_with_their_slopes():
    angle = np.linspace(-0.2, 0.2, 41)
    value = 1 - np.where(angle < 0, -0.5, 2.0) * angle
    bend = plots_inner.Bend(np.degrees(angle), value, 0.5, -2.0)
    figure, _ = plots_inner.kink.__wrapped__(bend, np.array([-8.0, 3.0]), np.array([8.0, -1.0]), "alt")
    near, far = figure.axes
    for line, slope in zip(near.lines[1:3], (0.5, -2.0), strict=True):
        at, height = np.radians(line.get_xdata()), line.get_ydata()
        assert_allclose(height, 1 + slope * at)
    assert [line.get_ydata().tolist() for line in far.lines[:2]] == [[-8.0, 3.0], [8.0, -1.0]]
