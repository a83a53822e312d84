"""What requests say in their query."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rowwise.server.problems import Problem, invalid

MAX_QUERY_BYTES = 2000
Query = TypeVar("Query", bound=BaseModel)


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


def parsed(kind: type[Query], text: bytes) -> Query:
    """A query as the model `kind`, as FastAPI would make it. Raises Problem (422)."""
    return _parsed(kind, text)  # type: ignore[return-value]


@lru_cache(maxsize=256)
def _parsed(kind: type[BaseModel], text: bytes) -> BaseModel:
    if len(text) > MAX_QUERY_BYTES:
        raise Problem(422, "invalid", f"a query has at most {MAX_QUERY_BYTES:,} bytes, got more")
    try:
        pairs = parse_qsl(text.decode("latin-1"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        raise Problem(422, "invalid", "a query has at most 20 parameters, got more") from None
    try:
        return kind.model_validate(dict(pairs))
    except ValidationError as error:
        raise invalid(error.errors(include_url=False), kind.model_fields) from None
