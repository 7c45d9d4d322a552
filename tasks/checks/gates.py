"""What a run is accepted with."""

from pydantic import BaseModel, ConfigDict, Field


class Gates(BaseModel):
    """What must hold before the switch. The defaults are those of the forms."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # another version may have had others

    min_recall: float = Field(ge=0, le=1, description="recall of the index against exact search, at least")
    recall_k: int = Field(ge=1, le=100, description="neighbours a query that recall is taken over")
    min_row_cosine: float = Field(ge=-1, le=1, description="cosine of every sampled row with its source, at least")
    sample: int = Field(ge=1, le=10_000, description="rows sampled; 299 clean ones exclude a 1 % fault rate at 95 %")
    max_quarantined: int = Field(ge=0, description="quarantined rows that are accepted")
    max_deleted: float = Field(ge=0, le=1, description="share of a live table that a sync may delete")
