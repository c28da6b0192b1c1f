"""A request of the Open Inference Protocol → rows.

A tensor's values stand in the request's JSON, or, in the binary tensor data extension, as little-endian bytes behind
it. All tensors are columns.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any

import numpy as np
from msgspec import Meta, Struct

from models.cells import CellError, accepts, parse_value
from models.rows import Row
from models.schema import MAX_FIELDS, Field
from service.http.body.decoding import decode_body
from service.http.body.faults import MAX_FAULTS, shown
from service.http.errors import InvalidBody, MalformedBody, ServiceError
from service.http.negotiation import JSON
from service.routes.schemas import MAX_BATCH
from service.routes.table import Table

BYTES = "BYTES"
INTEGERS = {f"{kind}{8 * size}": f"<{kind[0].lower()}{size}" for kind in ("INT", "UINT") for size in (1, 2, 4, 8)}
FLOATS = {"FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}
DTYPES = {"BOOL": "?", **INTEGERS, **FLOATS}
"""Datatypes of fixed size → NumPy's, as they lie in a body."""
WHOLE = "row"
"""The input that holds each row as a JSON object, in place of one tensor per field; not where a field has its name."""
MAX_NAMED_FAULTS = 20
"""Faults named of a request: they stand in one sentence."""

Parameters = dict[str, Any] | None


class InputTensor(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``data`` is flat or nested by rows; in its place ``parameters.binary_data_size`` bytes lie behind the JSON."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters = None
    data: list[Any] | None = None


class RequestedOutput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An output wanted; ``parameters.binary_data`` says in which form."""

    name: str
    parameters: Parameters = None


class InferRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Without ``outputs`` all are given. ``model_name``, which some clients repeat here, is not looked at."""

    inputs: Annotated[list[InputTensor], Meta(min_length=1, max_length=MAX_FIELDS)]
    outputs: Annotated[list[RequestedOutput], Meta(max_length=64)] | None = None
    id: Annotated[str, Meta(max_length=256)] | None = None
    parameters: Parameters = None
    model_name: str | None = None
    model_version: str | None = None


class InputColumn(Struct, frozen=True):
    """How a field is sent: the datatype announced, all that are taken, and what stands for unknown beside null and NaN.

    Whole numbers may come as floats, which is what pandas makes of a column with gaps.
    """

    datatype: str
    taken: tuple[str, ...]
    required: bool
    unknown: int | str | None = None


ANY_NUMBER = (*INTEGERS, *FLOATS)
WHOLE_COLUMN = InputColumn(BYTES, (BYTES,), True)


def _column(field: Field) -> InputColumn:
    # Where it cannot be a value: binary integers and texts have nothing else to say it with.
    minus_one = -1 if not field.required and (field.type == "boolean" or _is_no_value(field, -1)) else None
    if field.type == "number":
        return InputColumn("FP64", (*FLOATS, *INTEGERS), field.required)
    if field.type == "integer" or field.whole:
        return InputColumn("INT64", ANY_NUMBER, field.required, minus_one)
    if field.type == "boolean":
        return InputColumn("BOOL", ("BOOL", *ANY_NUMBER), field.required, minus_one)
    return InputColumn(BYTES, (BYTES,), field.required, None if field.required else "")


def _is_no_value(field: Field, value: int) -> bool:
    try:
        parse_value(field, value)
    except CellError:
        return True
    return False


@lru_cache(4)
def input_columns(table: Table) -> Mapping[str, InputColumn]:
    """Name of an input → how it is sent: the fields, and a whole row as JSON."""
    columns = {field.name: _column(field) for field in table.schema.fields}
    return columns if WHOLE in columns else {**columns, WHOLE: WHOLE_COLUMN}


class Faults(list[str]):
    """What is wrong with a request, in one sentence."""

    def stop(self) -> None:
        """Raise MalformedBody if there is anything."""
        if self:
            count = f"{len(self)} fault{'s' if len(self) > 1 else ''}"
            raise MalformedBody(f"the request has {count}: {some(self)}")


def some(faults: Sequence[str]) -> str:
    more = f"; and {len(faults) - MAX_NAMED_FAULTS} more" if len(faults) > MAX_NAMED_FAULTS else ""
    return "; ".join(faults[:MAX_NAMED_FAULTS]) + more


def read_request(body: bytes, header_length: int | None) -> tuple[InferRequest, bytes]:
    """A body → its JSON part, and what lies behind; raises MalformedBody."""
    head = body if header_length is None else body[:header_length]
    try:
        return decode_body(head, JSON, InferRequest), b"" if header_length is None else body[header_length:]
    except InvalidBody as error:
        faults = Faults(
            f"{fault.pointer or '/'} is {fault.value or 'absent'}: {fault.message}" for fault in error.faults
        )
        faults.stop()
        raise
    except MalformedBody as error:
        hint = "; JSON has no NaN: write null for unknown, or send binary data" if b"NaN" in head else ""
        raise MalformedBody(f"{error}{hint}") from error


def read_rows(request: InferRequest, binary: bytes, table: Table) -> list[Row]:
    """A request's input tensors → rows; raises MalformedBody with every fault found."""
    faults = Faults()
    expected = input_columns(table)
    columns = _columns(request.inputs, binary, expected, faults)
    faults.stop()
    if expected.get(next(iter(columns))) is WHOLE_COLUMN:
        rows = list(_whole(columns[WHOLE], table, faults))
    else:
        rows = list(_from_fields(columns, table, faults))
    faults.stop()
    return rows


def _columns(
    inputs: Sequence[InputTensor], binary: bytes, expected: Mapping[str, InputColumn], faults: Faults
) -> dict[str, list[Any]]:
    """Name of an input → its values, one per row."""
    names = [tensor.name for tensor in inputs]
    faults += [f"input {shown(name)} is there twice" for name in sorted({n for n in names if names.count(n) > 1})]
    whole = WHOLE in names and expected.get(WHOLE) is WHOLE_COLUMN
    if whole and len(names) > 1:
        faults.append(f"input {WHOLE} stands for all fields, so there can be no other")
    elif not whole:
        required = [name for name, column in expected.items() if column.required and column is not WHOLE_COLUMN]
        faults += [f"input {name} is absent" for name in required if name not in names]
    columns, start, rows = {}, 0, inputs[0].shape[0] if inputs[0].shape else 0
    for tensor in inputs:
        size = (tensor.parameters or {}).get("binary_data_size")
        part = None
        if size is not None and (type(size) is not int or not 0 <= size <= len(binary) - start):
            faults.append(
                f"input {shown(tensor.name)}: binary_data_size is {shown(size)}, and {len(binary) - start} bytes are "
                "left behind the JSON, whose length the header Inference-Header-Content-Length tells"
            )
        elif size is not None:
            part, start = binary[start : start + size], start + size
        try:
            columns[tensor.name] = _values(tensor, part, rows, expected)
        except ValueError as error:
            faults.append(f"input {shown(tensor.name)}: {error}")
    if start != len(binary) and not faults:
        faults.append(f"{len(binary) - start} bytes behind the JSON belong to no input's binary_data_size")
    return columns


def _values(tensor: InputTensor, binary: bytes | None, rows: int, expected: Mapping[str, InputColumn]) -> list[Any]:
    """The values, None for unknown; raises ValueError."""
    column = expected.get(tensor.name)
    if column is None:
        names = [name for name, other in expected.items() if other is not WHOLE_COLUMN]
        alone = f", or {WHOLE} alone" if len(names) < len(expected) else ""
        raise ValueError(f"is not one; the inputs are {', '.join(names)}{alone}")
    if tensor.datatype not in column.taken:
        raise ValueError(f"datatype is {shown(tensor.datatype)}; it must be {' or '.join(column.taken)}")
    if tensor.shape not in ([rows], [rows, 1]) or not 1 <= rows <= MAX_BATCH:
        raise ValueError(
            f"shape is {shown(tensor.shape)}; it must be [n] or [n, 1], with one n from 1 to {MAX_BATCH} for all inputs"
        )
    parameters = tensor.parameters or {}
    if "shared_memory_region" in parameters:
        raise ValueError("shared memory is not offered")
    if (tensor.data is None) == ("binary_data_size" not in parameters):
        raise ValueError("it must have either data or the parameter binary_data_size")
    if tensor.data is not None:
        values = _from_json(tensor.data, tensor.shape, tensor.datatype)
    else:
        values = _from_binary(binary or b"", rows, tensor.datatype)
    if tensor.datatype in FLOATS:
        return [_decimal(value, tensor.datatype) for value in values]
    if column.unknown is None or tensor.datatype == "BOOL":
        return values
    return [None if value == column.unknown else value for value in values]


def _from_json(data: list[Any], shape: list[int], datatype: str) -> list[Any]:
    if len(shape) == 2 and all(isinstance(row, list) and len(row) == 1 for row in data):
        data = [row[0] for row in data]
    if len(data) != shape[0]:
        raise ValueError(f"data has {len(data)} values, and shape says {shape[0]}")
    wrong = [f"row {row} is {shown(value)}" for row, value in enumerate(data) if not _is_of(value, datatype)]
    if wrong:
        raise ValueError(f"{some(wrong)}, which is no {datatype}")
    return data


def _is_of(value: Any, datatype: str) -> bool:
    if value is None or datatype == BYTES:
        return value is None or isinstance(value, str)
    if datatype == "BOOL":
        return isinstance(value, bool)
    if datatype in FLOATS:
        # JSON's integers have no end, and past this one a float is what is meant.
        return type(value) is float or (type(value) is int and abs(value) < 1 << 64)
    limits = np.iinfo(INTEGERS[datatype])
    return type(value) is int and limits.min <= value <= limits.max


def _from_binary(binary: bytes, rows: int, datatype: str) -> list[Any]:
    if datatype == BYTES:
        return list(_texts(binary, rows))
    dtype = np.dtype(DTYPES[datatype])
    if len(binary) != rows * dtype.itemsize:
        raise ValueError(f"binary_data_size is {len(binary)}, and {rows} of {datatype} have {rows * dtype.itemsize}")
    values: list[Any] = np.frombuffer(binary, dtype).tolist()
    return values


def _texts(binary: bytes, rows: int) -> Iterator[str]:
    """Texts, each behind its length in four bytes."""
    start = 0
    for row in range(rows):
        length = int.from_bytes(binary[start : start + 4], "little") if start + 4 <= len(binary) else len(binary)
        start += 4 + length
        if start > len(binary):
            raise ValueError(f"row {row} ends behind the {len(binary)} bytes of binary_data_size")
        try:
            yield binary[start - length : start].decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"row {row} is not UTF-8: {error.reason}") from error
    if start != len(binary):
        raise ValueError(f"binary_data_size is {len(binary)}, and {rows} texts end after {start}")


def _decimal(value: float | None, datatype: str) -> float | None:
    """NaN → unknown, and a short float → the decimal number that was meant by it: .42, not .41999998688697815."""
    if value is None or value != value:
        return None
    if datatype == "FP64":
        return value
    with np.errstate(over="ignore"):
        return float(str(np.dtype(FLOATS[datatype]).type(value)))


def _from_fields(columns: Mapping[str, list[Any]], table: Table, faults: Faults) -> Iterator[Row]:
    fields = [table.schema.by_name[name] for name in columns]
    for number, values in enumerate(zip(*columns.values(), strict=True)):
        if len(faults) > MAX_FAULTS:
            return
        row = {}
        for field, value in zip(fields, values, strict=True):
            try:
                row[field.name] = _parse(field, value)
            except CellError:
                must = accepts(field, in_json=True)
                faults.append(f"input {field.name}, row {number} is {shown(value)}: must be {must}")
        if len(row) == len(fields):
            yield table.row(**row)


def _parse(field: Field, value: Any) -> Any:
    """A field's value; in a tensor 1 and 0 stand for true and false, whatever the table's file has for them."""
    if field.type != "boolean" or value is None:
        return parse_value(field, value)
    if value not in (0, 1):
        raise CellError(field, value)
    return bool(value)


def _whole(values: Sequence[str], table: Table, faults: Faults) -> Iterator[Row]:
    for row, value in enumerate(values):
        if len(faults) > MAX_FAULTS:
            return
        try:
            yield decode_body((value or "null").encode(), JSON, table.row)
        except InvalidBody as error:
            faults += [
                f"input {WHOLE}, row {row}{fault.pointer} is {fault.value or 'absent'}: {fault.message}"
                for fault in error.faults
            ]
        except ServiceError as error:
            faults.append(f"input {WHOLE}, row {row}: {str(error).replace('the body', 'it', 1)}")
