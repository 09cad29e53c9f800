"""The plan of an archive: what its bytes stand for, as JSON lists with few letters.

Everything in a ``Plan`` but itself is a row: a JSON list of its fields in the order in which the class names
them, without the defaults at its end. So ``["weight",[8,3,5],0,14,8,0]`` is a ``StoredTensor`` called weight
of shape [8, 3, 5] and dtype F32, sparse with 14 values, 8 bits each, one scale per index of axis 0.

Tensors lie end to end in the order of the plan, none of their offsets is written down. Each is
    scale (float32)  zero point (uint8)      only where it holds integers
    input scale (float32)                    only where the plan keeps one
    bitmap                                   only where it is sparse
    values                                   all of them, or where the bitmap has a bit
The fields are named in full in every error about a file.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_serializer, model_validator

from tinypress.archive.bitmap import bitmap_bytes
from tinypress.bits import packed_bytes

FORMAT: Literal[1] = 1

# A plan names a dtype by its place here; the names are those of safetensors.
DTYPES: tuple[tuple[str, torch.dtype], ...] = (
    ("F32", torch.float32),
    ("I64", torch.int64),
    ("F16", torch.float16),
    ("BF16", torch.bfloat16),
    ("F64", torch.float64),
    ("BOOL", torch.bool),
    ("U8", torch.uint8),
    ("I8", torch.int8),
    ("I16", torch.int16),
    ("I32", torch.int32),
)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a name holds a character that cannot be printed")
    return text


def _one_word(text: str) -> str:
    if "." in text:
        raise ValueError("the name of one tensor holds a dot")
    return text


Name = Annotated[str, Field(max_length=1000), AfterValidator(_printable)]
Size = Annotated[int, Field(ge=0, lt=2**31)]
Numbers = Annotated[tuple[Size, ...], Field(strict=False)]


class Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Row(Facts):
    """Travels as a list of its fields, without the defaults at its end."""

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        if len(value) > len(cls.model_fields):
            raise ValueError(f"a list of {len(value)} where {len(cls.model_fields)} fields are known")
        return dict(zip(cls.model_fields, value, strict=False))

    @model_serializer
    def _to_list(self) -> list[Any]:
        values = [getattr(self, name) for name in type(self).model_fields]
        for field in reversed(type(self).model_fields.values()):
            if field.is_required() or values[-1] != field.default:
                break
            values.pop()
        return values


class StoredTensor(Row):
    """One tensor. ``kept`` is the number of values of a sparse one; ``bits`` those of an integer weight,
    whose ``zero_point`` is ``none`` (symmetric), ``stored`` (affine) or ``zero`` (affine, all of them 0).
    ``group`` weights of one index of ``axis`` share a scale; ``balanced`` tells that there is an input scale.
    ``half`` is what the values are where the plan rounded them to two bytes and not to integers."""

    name: Annotated[Name, Field(min_length=1), AfterValidator(_one_word)]
    shape: Annotated[Numbers, Field(max_length=16)]
    dtype: Annotated[int, Field(ge=0, lt=len(DTYPES))] = 0
    kept: Size | None = None
    bits: Annotated[int, Field(ge=2, le=8)] | None = None
    axis: Annotated[int, Field(ge=0, lt=16)] | None = None
    zero_point: Literal["none", "stored", "zero"] = "none"
    group: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    balanced: bool = False
    half: Literal["float16", "bfloat16"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.kept is not None and self.kept > self.count:
            raise ValueError(f"kept is {self.kept} in a tensor of {self.count} values")
        floating = self.torch_dtype.is_floating_point
        if not floating and (self.kept is not None or self.bits is not None):
            raise ValueError(f"dtype {self.dtype_name} can only be stored dense")
        if self.axis is not None and self.axis >= len(self.shape):
            raise ValueError(f"axis is {self.axis} in a tensor of {len(self.shape)} dimensions")
        if self.bits is None and (self.axis is not None or self.zero_point != "none"):
            raise ValueError("axis and zero_point need bits")
        if self.group is not None and self.axis is None:
            raise ValueError("group needs an axis")
        if self.half is not None and (self.bits is not None or not floating):
            raise ValueError("half needs a float dtype and no bits")
        if self.balanced and (self.bits is None or len(self.shape) < 2):
            raise ValueError("balanced needs bits and two dimensions")
        return self

    @property
    def dtype_name(self) -> str:
        return DTYPES[self.dtype][0]

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype][1]

    @property
    def count(self) -> int:
        """Elements of the tensor."""
        return math.prod(self.shape)

    @property
    def scales(self) -> int:
        """Elements of the scale, 0 where the tensor holds no integers."""
        if self.bits is None:
            return 0
        if self.axis is None:
            return 1
        channels = self.shape[self.axis]
        if self.group is None or not channels:
            return channels
        return channels * -(-(self.count // channels) // self.group)

    @property
    def value_bits(self) -> int:
        if self.half is not None:
            return 16
        return self.torch_dtype.itemsize * 8 if self.bits is None else self.bits

    @property
    def quantized(self) -> bool:
        """Whether the quantization plan knows this tensor."""
        return self.bits is not None or self.half is not None

    @property
    def parts_bytes(self) -> tuple[int, int, int, int, int]:
        """Lengths of scale, zero point, input scale, bitmap and values."""
        values = self.count if self.kept is None else self.kept
        return (
            4 * self.scales,
            self.scales if self.zero_point == "stored" else 0,
            4 * self.shape[1] if self.balanced else 0,
            0 if self.kept is None else bitmap_bytes(self.count),
            packed_bytes(values, self.value_bits),
        )


class StoredLayer(Row):
    """One module that owns tensors, an Identity, a Zero or a shortened list: the words are those of
    ``layers.LayerShape``."""

    module: Name
    kind: Annotated[Name, Field(min_length=1)]
    attributes: dict[Name, Size | list[Size]] = Field(default={}, max_length=16)
    tensors: tuple[StoredTensor, ...] = Field(default=(), strict=False)

    def full_name(self, tensor: StoredTensor) -> str:
        return f"{self.module}.{tensor.name}" if self.module else tensor.name


class StoredAlias(Row):
    """A further name of the tensor number ``target``."""

    name: Annotated[Name, Field(min_length=1)]
    target: Size


class StoredValue(Row):
    """Scale and zero point of an activation."""

    name: Name
    scale: Annotated[float, Field(gt=0)]
    zero_point: Size
    bits: Annotated[int, Field(ge=2, le=8)] = 8

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.zero_point >= 2**self.bits:
            raise ValueError(f"zero_point is {self.zero_point} in {self.bits} bits")
        return self


class Plan(Facts):
    """The root. ``crc32`` is of the data. Names are numbered: first the tensors, then the aliases.

    ``pruned`` are the numbers of the pruned parameters. ``quantized`` are those of the names that the
    quantization plan lists, left out where these are the tensors with bits and no alias. ``values`` are the
    plan's activations, left out where there is no plan. ``dynamic`` are the numbers of weights whose layers round their
    input at run time.
    """

    format: Literal[1] = FORMAT
    name: Name = ""
    crc32: Annotated[int, Field(ge=0, lt=2**32)]
    layers: tuple[StoredLayer, ...] = Field(strict=False)
    aliases: tuple[StoredAlias, ...] = Field(default=(), strict=False)
    pruned: Numbers = ()
    quantized: Numbers | None = None
    values: tuple[StoredValue, ...] | None = Field(default=None, strict=False)
    dynamic: Numbers = ()

    @model_validator(mode="after")
    def _fits(self) -> Self:
        tensors = list(self.tensors())
        for place, alias in enumerate(self.aliases):
            if alias.target >= len(tensors):
                raise ValueError(
                    f"aliases.{place}.target is {alias.target}, there are {len(tensors)} tensors"
                )
        names = self.names()
        _refuse_repeats("layers.tensors.name or aliases.name", [name for name, _ in names])
        _refuse_repeats("layers.module", [layer.module for layer in self.layers])
        _refuse_repeats("values.name", [value.name for value in self.values or ()])
        for field, numbers in (
            ("pruned", self.pruned),
            ("quantized", self.quantized or ()),
            ("dynamic", self.dynamic),
        ):
            if list(numbers) != sorted(set(numbers)):
                raise ValueError(f"{field} is not in rising order")
            if numbers and numbers[-1] >= len(names):
                raise ValueError(f"{field} has the number {numbers[-1]}, there are {len(names)} names")
        integers = {place for place, (_, row) in enumerate(tensors) if row.quantized}
        if self.values is None and (integers or self.quantized is not None):
            raise ValueError("values is missing although there are bits")
        if self.quantized is not None:
            targets = {target for _, target in (names[number] for number in self.quantized)}
            if targets != integers:
                raise ValueError("quantized does not name the tensors with bits")
        if not {names[number][1] for number in self.dynamic} <= integers:
            raise ValueError("dynamic names a tensor without bits")
        return self

    def names(self) -> list[tuple[str, int]]:
        """Every name in the order of its number, with the number of its tensor."""
        own = [(name, place) for place, (name, _) in enumerate(self.tensors())]
        return own + [(alias.name, alias.target) for alias in self.aliases]

    def tensors(self) -> Iterator[tuple[str, StoredTensor]]:
        """Full name and row of every tensor, in the order of the data."""
        for layer in self.layers:
            for tensor in layer.tensors:
                yield layer.full_name(tensor), tensor

    @property
    def data_bytes(self) -> int:
        """What the data must measure."""
        return sum(sum(tensor.parts_bytes) for _, tensor in self.tensors())


def _refuse_repeats(what: str, names: list[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{what} {name[:80]!r} comes twice")
        seen.add(name)
