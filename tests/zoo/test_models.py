"""Models: the networks by name, with the parameters they are known by."""

import pytest
from respike.errors import RespikeError
from respike.zoo.models import create_model, list_models


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_published_sizes_are_met_to_the_parameter():
    small = create_model("respike_r18", num_classes=101)
    assert num_parameters(small) == 30_132_773
    assert num_parameters(small.ann) == 11_176_512
    assert round(num_parameters(small.fusions) / 1e6, 2) == 7.68
    large = create_model("respike_r50", num_classes=101)
    assert num_parameters(large) == 44_708_389
    assert num_parameters(large.ann) == 23_508_032
    assert round(num_parameters(large.fusions) / 1e6, 2) == 9.77


def test_the_tiny_network_is_tiny():
    assert num_parameters(create_model("respike_tiny", num_classes=16)) <= 1_500_000


def test_the_list_is_what_can_be_made():
    assert list_models() == ["respike_r18", "respike_r50", "respike_tiny"]


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(RespikeError, match="did you mean 'respike_r18'"):
        create_model("respike_r19", num_classes=2)
