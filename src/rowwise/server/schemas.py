"""The shapes of what the API gives, for its description."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
PictureText = Annotated[str, Field(description="A PNG in base64.")]


class Shape(BaseModel):
    """What has these keys and no other."""

    model_config = ConfigDict(extra="forbid")


class Problem(Shape):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="`about:blank`, or `urn:rowwise:problem:NAME`.")
    title: str = Field(description="The status in words.")
    status: int
    detail: str = Field(description="The rule, what was got, the remedy.")


class BareReading(Shape):
    """What was read in one picture."""

    digit: int | None = Field(description="The place of the class; null where no ink was found.")
    label: str = Field(description="The name of the class.")
    confidence: Share = Field(description="The largest probability, calibrated.")
    accepted: bool = Field(description="Whether it keeps the model's promised error rate.")
    reason: str = Field(description="Why it is not accepted.")
    probabilities: list[Share] = Field(description="One a class, calibrated.")


class Step(Shape):
    """One step of the way from the picture to what the network saw."""

    name: str
    sentence: str
    picture: PictureText


class Neighbour(Shape):
    """A training picture like the one that was read."""

    label: str
    distance: float = Field(description="0 for the same ink, 1 for ink that nowhere meets.")
    place: int = Field(description="Counted from 0.")
    picture: PictureText


class Explanation(Shape):
    """Why it was read so."""

    seen: PictureText = Field(description="What the network saw; empty where no ink was found.")
    rows: int
    columns: int
    steps: list[Step]
    beliefs: list[list[Share]] = Field(description="The probabilities after each row.")
    belief_model: str = Field(description="The model that they are of.")
    decided_at: int | None = Field(description="The row, from 1, from which on its answer stayed.")
    remark: str
    ink: list[list[Share]] = Field(description="How much hangs on each pixel's ink.")
    neighbours: list[Neighbour]
    why_no_neighbours: str


class Flip(Shape):
    """A small change of ink that makes it another digit."""

    picture: PictureText = Field(description="What the network sees, changed.")
    added: list[tuple[int, int]] = Field(description="(row, column) of pixels with more ink.")
    removed: list[tuple[int, int]] = Field(description="(row, column) of pixels with less ink.")
    reading: BareReading = Field(description="The changed picture, read again.")


class Reading(BareReading):
    """What was read in one picture, and why where that was asked for."""

    model: str
    classes: list[str]
    explanation: Explanation | None = Field(None, description="With `explain=true`.")
    flip: Flip | None = Field(None, description="With `flip=true`; null where none was found.")
    why_no_flip: str = Field("", description="With `flip=true`.")


class Failed(Shape):
    """Why there is no reading of a picture."""

    error: Problem


class Readings(Shape):
    """What was read in many pictures, in their order."""

    model: str
    classes: list[str]
    readings: list[BareReading | Failed]


class Kept(Shape):
    """How many corrections are kept."""

    kept: int = Field(description="Of this label.")
    of: int = Field(description="In all.")


class Promise(Shape):
    """From which confidence on readings are accepted so that an error rate is kept."""

    error_rate: Share
    level: Share
    confidence: Share
    pictures: int
    accepted: int
    wrong: int


class Card(BaseModel):
    """What is known of a model, as `rowwise models NAME --json` gives it."""

    name: str
    parameters: int
    bytes: int
    classes: list[str]
    row_by_row: bool
    temperature: float
    promises: list[Promise]
    figures: dict[str, float]


class Models(Shape):
    """The models that are served."""

    default: str
    models: list[Card]


class Limits(Shape):
    """What a request may hold."""

    bytes: int
    pixels: int = Field(description="Of a picture.")
    request_pixels: int = Field(description="Of all pictures of a request.")
    pictures: int


class Server(Shape):
    """What this server does."""

    version: str
    models: list[str]
    default: str
    keeps_corrections: bool
    limits: Limits
    needs_key: bool
    training_digits: bool


class State(Shape):
    """How the server is."""

    status: str
