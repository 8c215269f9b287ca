import pytest

from looper.checkpoints.mapping import model_mapping


@pytest.mark.parametrize(
    ("text", "mapping"),
    [
        ("", {}),
        ("medium=weights/tiny", {"medium": "weights/tiny"}),
        (" medium = a , large=b,", {"medium": "a", "large": "b"}),
    ],
)
def test_model_names_are_mapped_to_folders(text, mapping):
    assert model_mapping(text) == mapping


@pytest.mark.parametrize("text", ["tiny", "small=weights/tiny", "medium=", "medium:weights/tiny"])
def test_a_mapping_that_does_not_read_is_refused(text):
    with pytest.raises(ValueError, match="LOOPER_MODELS must look like"):
        model_mapping(text)
