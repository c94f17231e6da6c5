import math

import pytest
import torch

from d2_detr.modeling.network import sample_padding_mask
from d2_detr.modeling.position_encoding import SinePositionEncoding
from d2_detr.utils.errors import InputError


def test_a_two_by_two_grid_matches_a_hand_computation():
    """Angles of half a turn and a full turn; the wavelengths are 2 pi and 200 pi."""
    encoding = SinePositionEncoding(8)(torch.zeros(1, 2, 2, dtype=torch.bool))[0]
    half, full = math.pi, 2 * math.pi
    y_of_cell_01 = [math.sin(half), math.cos(half), math.sin(half / 100), math.cos(half / 100)]
    x_of_cell_01 = [math.sin(full), math.cos(full), math.sin(full / 100), math.cos(full / 100)]
    expected = torch.tensor(y_of_cell_01 + x_of_cell_01)
    torch.testing.assert_close(encoding[:, 0, 1], expected, rtol=0, atol=1e-5)


def test_padding_does_not_change_the_encoding():
    alone = SinePositionEncoding(16)(torch.zeros(1, 3, 4, dtype=torch.bool))
    mask = torch.ones(1, 6, 9, dtype=torch.bool)
    mask[:, :3, :4] = False
    torch.testing.assert_close(SinePositionEncoding(16)(mask)[:, :, :3, :4], alone)


def test_no_two_cells_have_the_same_encoding():
    encoding = SinePositionEncoding(32)(torch.zeros(1, 7, 9, dtype=torch.bool)).flatten(2)[0].T
    distance = torch.cdist(encoding, encoding) + 10 * torch.eye(len(encoding))
    assert distance.min() > 1e-2


def test_a_width_not_divisible_by_4_is_refused():
    with pytest.raises(InputError, match="divisible by 4"):
        SinePositionEncoding(30)


def test_the_padding_mask_is_sampled_at_the_nearest_pixel():
    """Cell i of 3 takes pixel floor(i * 65 / 3) of a row: the last one, pixel 43."""
    mask = torch.zeros(1, 65, 65, dtype=torch.bool)
    mask[:, :, 43:] = True
    assert sample_padding_mask(mask, (3, 3))[0, 0].tolist() == [False, False, True]
    mask[:, :, 43] = False
    assert sample_padding_mask(mask, (3, 3))[0, 0].tolist() == [False, False, False]
