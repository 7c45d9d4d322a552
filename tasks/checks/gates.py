"""What a run is accepted with."""

from pydantic import BaseModel, ConfigDict, Field


class Gates(BaseModel):
    """What must hold before the switch. The defaults are those of the forms."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # another version may have had others

    min_recall: float = Field(ge=0, le=1, description="lowest recall of the index against exact search that passes")
    recall_k: int = Field(ge=1, le=100, description="neighbours per query that recall is measured over")
    min_row_cosine: float = Field(
        ge=-1, le=1, description="lowest cosine between a sampled row and its source that passes"
    )
    sample: int = Field(
        ge=1,
        le=10_000,
        description="rows to sample; 299 without a fault rule out a fault rate of 1% with 95% confidence",
    )
    max_quarantined: int = Field(ge=0, description="number of quarantined rows that passes")
    max_deleted: float = Field(ge=0, le=1, description="largest share of a table that a sync may delete")
