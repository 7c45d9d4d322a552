"""What a plan tells of images before any is embedded for good."""

from pathlib import Path

import pytest

from tasks.stores.postgres.connection import Connection
from tests.helpers.image_reports import ImageReports
from tests.helpers.local_models import needs_models, needs_timm
from tests.helpers.tiny_models import clip_model, timm_model

pytestmark = [needs_timm, needs_models]


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_a_plan_measures_what_fewer_bits_change(precision: str, connection: Connection, tmp_path: Path) -> None:
    """With precision=bfloat16 it says how near a few vectors of the table's own images come to those in float32."""
    old, new = clip_model(tmp_path / "clip"), timm_model(tmp_path / "timm")
    models = f"sentence-transformers/{old}", f"timm/{new}?preprocess=card&precision={precision}"
    reports = ImageReports(connection, tmp_path / "photos", *models, rows=12)
    (images,) = [more for more in reports.plan().more if more.name == "images"]
    told = [line for line in images.lines if "the lowest cosine of a vector to the one in float32 is" in line]
    if precision == "float32":
        assert (images.values["row_cosine"], told) == (None, [])
    else:
        assert 0.99 < images.values["row_cosine"] < 1
        assert len(told) == 1
        assert f"{images.values['row_cosine']:.4f}" in told[0]
