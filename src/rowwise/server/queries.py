"""What requests say in their query."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rowwise.server.problems import Problem, invalid

MAX_QUERY_BYTES = 2000


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


class QueryRoute(APIRoute):
    """A route whose function takes the request and the model of its query, and nothing else.

    FastAPI describes and finds it as any other. But it asks for no dependencies, of which there
    are none, and takes queries that it knows from memory: FastAPI's general way takes as long as
    the engine does for a reading.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The function that is called with each request."""
        endpoint: Callable[..., Coroutine[Any, Any, Response]] = self.endpoint
        [query] = self.dependant.query_params
        kind: type[BaseModel] = query.field_info.annotation  # type: ignore[assignment]

        async def handle(request: Request) -> Response:
            return await endpoint(request, parsed(kind, request.scope["query_string"]))

        return handle


@lru_cache(maxsize=256)
def parsed(kind: type[BaseModel], text: bytes) -> BaseModel:
    """A query as the model `kind`, as FastAPI would make it. Raises Problem (422)."""
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
