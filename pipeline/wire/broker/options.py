"""What transports over a broker are told, whichever it is. Secrets are named, never given."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field, field_validator

from pipeline.wire.broker.secrets import check_url, is_named_secret


def _named(name: str) -> str:
    if not is_named_secret(name):
        raise ValueError("a secret is named, not given: env:NAME of a variable, or file:PATH")
    return name


SecretName = Annotated[str, AfterValidator(_named)]
"""Where a secret is, as ``read_secret`` reads it."""
SigningKey = Annotated[
    SecretName | None,
    Field(
        repr=False,
        description="env:NAME or file:PATH of a key of 16 bytes or more; frames are signed with it (HMAC-SHA256), and readers that have it "
        "refuse others",
    ),
]


class TlsOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    ca: Path | None = Field(None, description="certificates that the broker's is checked with; not set: the system's")
    cert: Path | None = Field(None, description="this client's certificate, where the broker asks for one")
    key: Path | None = Field(None, description="the private key of cert")


class BrokerOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(repr=False, description="where the broker is, without credentials")
    stream: str = Field(
        "rowstream", pattern=r"^[A-Za-z0-9_-]{1,128}$", description="name of the stream; a run has one of its own"
    )
    credentials: SecretName | None = Field(
        None,
        repr=False,  # nor is it shown where somebody wrote the secret itself
        description="env:NAME or file:PATH of what the broker asks for: USER:PASSWORD, or a token or password alone",
    )
    tls: TlsOptions | None = Field(None, description="encrypt; not set: as the URL's scheme says")
    signing_key: SigningKey = None
    replace: bool = Field(
        False, description="a run that begins removes the stream of another run that has this name; else it is refused"
    )
    durability: Literal["promised", "any"] = Field(
        "promised",
        description="promised: refuse a broker that would lose what it acknowledged; any: take what there is",
    )
    payload_bytes: ByteSize = Field(
        ByteSize(512 << 10),
        ge=1024,
        le=64 << 20,
        description="longer frames travel in pieces; less where the broker takes less",
    )
    window_bytes: ByteSize = Field(
        ByteSize(16 << 20), ge=1024, description="frames sent and not acknowledged yet, in bytes, before sending waits"
    )
    part_bytes: ByteSize = Field(
        ByteSize(16 << 20),
        ge=1024,
        description="the header is repeated behind so many bytes; retention forgets whole parts",
    )
    read_bytes: ByteSize = Field(ByteSize(4 << 20), ge=4096, description="how much a reader takes at once")
    max_frame_bytes: ByteSize = Field(ByteSize(64 << 20), ge=4096, description="a longer frame is refused as damage")
    timeout_s: float = Field(
        10.0, gt=0, description="without an answer for so long, the broker counts as unreachable, seconds"
    )

    @field_validator("url")
    @classmethod
    def no_credentials(cls, url: str) -> str:
        return check_url(url)


Options = TypeVar("Options", bound=BrokerOptions)


def needs_package(options: Options, extra: str, package: str) -> Options:
    """Raises ValueError where the client of a kind of broker is not installed."""
    if find_spec(extra) is None:
        raise ValueError(f"kind {extra!r} needs the package {package}: pip install 'rowstream[{extra}]'")
    return options
