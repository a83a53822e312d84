"""What requests say in their query."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class AskedMany(BaseModel):
    """What a request for readings may say beside the pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str = Field("", description="The model that reads; default: that of `/v1/models`.")


class Asked(AskedMany):
    """What a request for a reading may say beside the picture."""

    explain: bool = Field(False, description="Tell why it was read so.")
    flip: bool = Field(False, description="Tell a small change that makes it another digit.")


class Label(BaseModel):
    """What a correction says beside the picture."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: str = Field(description="The class that the picture shows.", examples=["7"])
