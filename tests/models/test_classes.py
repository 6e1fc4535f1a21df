"""A class by its name or number."""

import numpy as np
import pytest
import torchvision
from hypothesis import given
from hypothesis import strategies as st

from agnostic.errors import InvalidInput, UnknownName
from agnostic.models.classes import class_index, imagenet_classes

NAMES = imagenet_classes()


def test_the_names_are_torchvisions():
    assert list(NAMES) == torchvision.models.VGG16_Weights.DEFAULT.meta["categories"]


@given(st.integers(0, 999))
def test_every_name_and_number_finds_its_class(index):
    assert class_index(NAMES[index], NAMES) == index
    assert class_index(index, NAMES) == class_index(str(index), NAMES) == class_index(np.int64(index), NAMES) == index


@pytest.mark.parametrize("name", ["Egyptian cat", "egyptian_cat", "EGYPTIAN  CAT", "Egyptian-cat"])
def test_case_and_word_separators_do_not_matter(name):
    assert class_index(name, NAMES) == 285


def test_an_exact_name_is_preferred_to_one_in_other_case():
    assert (class_index("Cardigan", NAMES), class_index("cardigan", NAMES)) == (264, 474)


def test_an_ambiguous_name_lists_both_numbers():
    with pytest.raises(InvalidInput, match=r"264 \('Cardigan'\) and 474 \('cardigan'\): give the number"):
        class_index("CARDIGAN", NAMES)
    with pytest.raises(InvalidInput, match=r"0 \('crane'\) and 2 \('crane'\)"):
        class_index("crane", ("crane", "bee", "crane"))


def test_a_name_of_digits_is_a_name_first():
    assert class_index("1", ("7", "1", "0")) == 1
    assert class_index("0", ("7", "1", "0")) == 2
    assert class_index("2", ("7", "1", "0")) == 2  # no such name, so the number


@pytest.mark.parametrize(
    ("name", "said"),
    [("cat", "'tiger cat', 'Persian cat'"), ("espreso", "did you mean 'espresso'"), ("qqqq", "no class 'qqqq' among")],
)
def test_an_unknown_name_names_the_nearest(name, said):
    with pytest.raises(UnknownName) as caught:
        class_index(name, NAMES)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", [1000, -1, "1000", True, 1.5, None])
def test_what_is_no_class_number_is_refused(wrong):
    with pytest.raises(InvalidInput):
        class_index(wrong, NAMES)
