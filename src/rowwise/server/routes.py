"""The ways into the server: what each request asks for, and its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import partial
from typing import Annotated, Any, TypeVar, cast

from fastapi import APIRouter, Query, Request, Response

from rowwise._version import __version__
from rowwise.recognise import Reading
from rowwise.server import bodies, metrics, operations, origins
from rowwise.server.answers import Answer, json_of, plain_reading
from rowwise.server.batching import is_quick
from rowwise.server.decoding import Source
from rowwise.server.origins import is_loopback
from rowwise.server.problems import Problem
from rowwise.server.queries import Asked, AskedMany, Label, QueryRoute
from rowwise.server.service import Service

Wanted = TypeVar("Wanted")
routes = APIRouter()
pictures = APIRouter(route_class=QueryRoute)
NOT_KEPT = (
    "corrections are kept by a server that was started with --keep FOLDER, for requests from its "
    "own machine"
)


def service_of(request: Request) -> Service:
    """The server's models and threads."""
    return cast(Service, request.scope["service"])


class Abandoned(Exception):
    """The client has gone before it was answered."""


async def _while_wanted(request: Request, work: Coroutine[Any, Any, Wanted]) -> Wanted:
    """What `work` gives. Ends it, and raises Abandoned, where the client goes before."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Abandoned
        return task.result()
    finally:
        gone.cancel()
        task.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# --- reading ------------------------------------------------------------------------------------


@pictures.post("/v1/read", **operations.READ)
async def read(request: Request, asked: Annotated[Asked, Query()]) -> Response:
    """Read the digit in one picture."""
    service = service_of(request)
    recogniser = service.shelf[asked.model]
    try:
        source = await _one_picture(request)
        more: dict[str, Any] = {}
        if asked.explain or asked.flip:
            why = service.explain(asked.model, source, why=asked.explain, flip=asked.flip)
            reading, more = await _while_wanted(request, why)
        elif is_quick(source):
            reading = await service.read(recogniser, source)
        else:
            reading = await _while_wanted(request, service.read(recogniser, source))
    finally:
        service.intake.release(request)
    request.scope["call"].pictures = 1
    tree = {"model": asked.model or service.shelf.default, **plain_reading(reading)}
    return json_of(tree | {"classes": recogniser.model.classes} | more)


async def _one_picture(request: Request) -> Source:
    service = service_of(request)
    body = await service.intake.read(request, bodies.ONE_TYPES)
    return await service.parsed(partial(bodies.one_picture, body), len(body.data))


@pictures.post("/v1/read-many", **operations.READ_MANY)
async def read_many(request: Request, asked: Annotated[AskedMany, Query()]) -> Response:
    """Read one digit in each of many pictures."""
    service = service_of(request)
    recogniser = service.shelf[asked.model]
    most, shape = service.configuration.max_pictures, recogniser.model.network.shape
    try:
        body = await service.intake.read(request, bodies.MANY_TYPES)
        work = partial(bodies.many_pictures, body, most=most, shape=shape)
        sources = await service.parsed(work, len(body.data))
        found = await _while_wanted(request, service.read_many(recogniser, sources))
    finally:
        service.intake.release(request)
    request.scope["call"].pictures = len(found)
    readings = [
        plain_reading(one) if isinstance(one, Reading) else {"error": one.plain()} for one in found
    ]
    name = asked.model or service.shelf.default
    return json_of({"model": name, "classes": recogniser.model.classes, "readings": readings})


@pictures.post("/v1/corrections", **operations.CORRECT)
async def correct(request: Request, asked: Annotated[Label, Query()]) -> Response:
    """Keep a picture as an example of what it shows."""
    service = service_of(request)
    origins.check_same_site(request.scope["call"].headers)
    if not service.keeps or not _is_from_here(request):
        raise Problem(404, "not-kept-here", NOT_KEPT)
    try:
        kept = await service.keep(asked.label, await _one_picture(request))
    finally:
        service.intake.release(request)
    return json_of({"kept": kept.of_label, "of": kept.total}, 201)


def _is_from_here(request: Request) -> bool:
    """Whether a user of this machine asks, under one of its own names, and no proxy for others."""
    client = request.scope.get("client")
    headers = request.scope["call"].headers
    here = client is not None and is_loopback(client[0])
    return here and origins.names_this_machine(headers) and not origins.was_forwarded(headers)


# --- what there is ------------------------------------------------------------------------------


@routes.get("/v1/models", **operations.MODELS)
async def models(request: Request) -> Response:
    """The models that are served, and what is known of each."""
    shelf = service_of(request).shelf
    return json_of({"default": shelf.default, "models": shelf.cards()})


@routes.get("/v1/models/{name}", **operations.CARD)
async def model_card(request: Request, name: str) -> Response:
    """What is known of one model."""
    return json_of(service_of(request).shelf.card(name))


@routes.get("/v1/server", **operations.SERVER)
async def server(request: Request) -> Response:
    """What this server does, for its page."""
    service = service_of(request)
    return json_of(
        {
            "version": __version__,
            "models": service.shelf.names,
            "default": service.shelf.default,
            "keeps_corrections": service.keeps and _is_from_here(request),
            "limits": service.configuration.limits,
            "needs_key": request.scope["needs_key"],
            "training_digits": await service.knows_training(),
        }
    )


# --- how it is ----------------------------------------------------------------------------------


@routes.get("/healthz", **operations.HEALTH)
async def healthz() -> Response:
    """Whether the process lives."""
    return json_of({"status": "alive"})


@routes.get("/readyz", **operations.READY)
async def readyz(request: Request) -> Response:
    """Whether requests should be sent here."""
    if service_of(request).draining:
        detail = "this server is ending; send requests to another one"
        raise Problem(503, "draining", detail, headers={"Retry-After": "5"})
    return json_of({"status": "ready"})


@routes.get("/metrics", **operations.METRICS)
async def numbers(request: Request) -> Response:
    """What was counted, for Prometheus."""
    service = service_of(request)
    service.metrics.queued(service.batcher.waiting)
    text = await asyncio.to_thread(service.metrics.text)
    return Answer(text, media_type=metrics.MEDIA_TYPE)


@routes.get("/", **operations.PAGE)
async def page(request: Request) -> Response:
    """The page."""
    return cast(Response, request.scope["page"])
