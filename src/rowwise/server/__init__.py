"""The HTTP server: an API under /v1, and the page that uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import Receive, Scope, Send

from rowwise._version import __version__
from rowwise.recognise import Recogniser
from rowwise.server import keys, operations, page
from rowwise.server.configuration import Configuration
from rowwise.server.gate import Gate, fault
from rowwise.server.origins import Hosts, is_loopback
from rowwise.server.problems import Full, Problem, invalid
from rowwise.server.routes import Abandoned, pictures, routes
from rowwise.server.service import Service
from rowwise.server.shelf import Shelf

ABANDONED = 499  # the status of a request whose client has gone, as nginx has it in its log
GAUGE_S = 1.0  # between two looks at the queue, for the metrics
DESCRIPTION = (
    "Reads handwritten digits in pictures, and tells why. What goes wrong is told as problem "
    "details (RFC 9457)."
)


class Application:
    """The server as an ASGI application: `service` is what it does, `api` its routes."""

    def __init__(self, service: Service, api: FastAPI, gate: Gate) -> None:
        self.service, self.api = service, api
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        await self._gate(scope, receive, send)


def create_app(
    configuration: Configuration | None = None,
    *,
    recognisers: Mapping[str, Recogniser] | None = None,
) -> Application:
    """The server as an ASGI application, its models loaded.

    Args:
        configuration: what it serves, and how; the defaults where it is not given. Addresses and
            workers are not its business.
        recognisers: by name, in the place of the models that the configuration names.

    Raises:
        ModelError, EngineError: a model cannot be loaded.
        ConfigError: there is no model, no such default, or a key breaks a rule.
    """
    chosen = configuration or Configuration()
    known = keys.load(chosen)
    shelf = Shelf(recognisers, default=chosen.default) if recognisers else Shelf.of(chosen)
    service = Service(chosen, shelf)
    api = _api(service, keyed=bool(known))
    gate = Gate(
        api,
        shared={"service": service, "page": page.answer(page.content()), "needs_key": bool(known)},
        keys=known,
        hosts=Hosts(chosen.hosts, local=is_loopback(chosen.host)),
        metrics=service.metrics,
        around=_cors(chosen),
    )
    return Application(service, api, gate)


def _api(service: Service, *, keyed: bool) -> FastAPI:
    api = FastAPI(
        title="Rowwise",
        version=__version__,
        description=DESCRIPTION,
        docs_url=None,  # these pages fetch from other servers
        redoc_url=None,
        lifespan=partial(_lifespan, service),
        telemetry={"tracing": False, "metrics": False, "logs": False},  # asked for every request
    )
    # Not `include_router`, which looks each route up in a router of its own, anew a request.
    api.router.routes += [*pictures.routes, *routes.routes]
    api.add_exception_handler(Problem, _problem)
    api.add_exception_handler(Abandoned, _abandoned)
    api.add_exception_handler(Exception, _fault)
    api.add_exception_handler(HTTPException, _http)
    api.add_exception_handler(RequestValidationError, _invalid)

    def described() -> dict[str, Any]:
        if api.openapi_schema is None:
            found = get_openapi(
                title=api.title, version=api.version, description=DESCRIPTION, routes=api.routes
            )
            api.openapi_schema = operations.completed(found, keyed=keyed)
        return api.openapi_schema

    api.openapi = described  # type: ignore[method-assign]
    return api


@asynccontextmanager
async def _lifespan(service: Service, api: FastAPI) -> AsyncIterator[None]:
    async def watch() -> None:
        while True:
            service.metrics.queued(service.batcher.waiting)
            await asyncio.sleep(GAUGE_S)

    watching = asyncio.create_task(watch())
    yield
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching
    service.stop()


def _cors(configuration: Configuration) -> Any:
    """What lets pages of the origins that were named call the API; nothing where none was."""
    if not configuration.origins:
        return None
    return partial(
        CORSMiddleware,
        allow_origins=configuration.origins,
        allow_methods=("GET", "POST"),
        allow_headers=("Authorization", "Content-Type", "X-API-Key", "X-Request-ID"),
        expose_headers=("X-Request-ID", "Retry-After"),
    )


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    if isinstance(error.__cause__, Full):
        request.scope["service"].metrics.refused(str(error.__cause__))
    return error.answer()


async def _abandoned(request: Request, error: Exception) -> Response:
    return Response(status_code=ABANDONED)  # that nobody sees but the log


async def _fault(request: Request, error: Exception) -> Response:
    return fault(request.scope["call"]).answer()  # the gate logs it


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    asked = request.scope["asked"][:20]
    details = {
        404: "there is nothing under this path; /openapi.json tells what there is",
        405: f"this path does not take {asked!r}; /openapi.json tells what it takes",
    }
    detail = details.get(error.status_code, str(error.detail))
    return Problem(error.status_code, "", detail, headers=error.headers).answer()


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    route = request.scope["route"]
    known = [name for field in route.dependant.query_params for name in _names(field)]
    return invalid(error.errors(), known).answer()


def _names(field: Any) -> list[str]:
    model = getattr(field.field_info, "annotation", None)
    return list(getattr(model, "model_fields", {field.name: None}))
