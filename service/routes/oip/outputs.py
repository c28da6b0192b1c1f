"""Predictions → a response of the Open Inference Protocol: one tensor per output, as JSON or as bytes behind it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct

from service.http.body.faults import shown
from service.routes.oip.inputs import BYTES, DTYPES, Faults, InferRequest, RequestedOutput
from service.routes.schemas import PredictionResponse


class OutputTensor(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``data`` is flat, row by row."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, int] = {}
    data: list[Any] | None = None


CLASSES = -1


class Output(Struct, frozen=True):
    """A column of the answers: its datatype, the sizes of what one row has where that is several values (`CLASSES`: one
    for each class), and its values in one answer, one after the other."""

    datatype: str
    value: Callable[[PredictionResponse], Any]
    sizes: tuple[int, ...] = ()

    def shape(self, rows: int, classes: int) -> list[int]:
        return [rows, *(classes if size == CLASSES else size for size in self.sizes)]


def _confidence(name: str, datatype: str = "FP64") -> Output:
    return Output(datatype, lambda answer: getattr(answer.confidence, name))


def _by_class(name: str) -> Output:
    return Output("FP64", lambda answer: getattr(answer.confidence, name).values(), (CLASSES,))


def _intervals(answer: PredictionResponse) -> list[float]:
    intervals: Any = answer.confidence.intervals
    return [end for interval in intervals.values() for end in interval]


OUTPUTS_OF_TWO = {
    "id": Output(BYTES, lambda answer: answer.id),
    "outcome": Output(BYTES, lambda answer: answer.outcome),
    "probability": Output("FP64", lambda answer: answer.probability),
    "probabilities": Output("FP64", lambda answer: answer.probabilities.values(), (CLASSES,)),
    "interval": Output("FP64", lambda answer: answer.confidence.interval, (2,)),
    "prediction_set": Output(BYTES, lambda answer: ",".join(answer.confidence.prediction_set)),
    "abstain": _confidence("abstain", "BOOL"),
    **{
        name: _confidence(name)
        for name in ("coverage", "margin", "entropy_bits", "typicality", "uncalibrated_probability")
    },
    "warnings": Output(
        BYTES, lambda answer: "; ".join(f"{warning.field}: {warning.message}" for warning in answer.confidence.warnings)
    ),
}
IN_PLACE: dict[str, tuple[str, Output] | None] = {
    "probability": None,
    "interval": ("intervals", Output("FP64", _intervals, (CLASSES, 2))),
    "uncalibrated_probability": ("uncalibrated_probabilities", _by_class("uncalibrated_probabilities")),
}
"""Of more than two classes, what is in the place of what is said of the positive one, if anything."""
OUTPUTS_OF_MORE = dict(
    pair for name, output in OUTPUTS_OF_TWO.items() if (pair := IN_PLACE.get(name, (name, output))) is not None
)


DECISION = {"decision": Output(BYTES, lambda answer: answer.decision)}
"""Last, where the costs of mistakes are given."""


def outputs_of(classes: int, *, decided: bool) -> dict[str, Output]:
    """The outputs of a model of that many classes, by name."""
    outputs = OUTPUTS_OF_TWO if classes == 2 else OUTPUTS_OF_MORE
    return outputs | DECISION if decided else outputs


def wanted_outputs(request: InferRequest, outputs: Mapping[str, Output]) -> dict[str, bool]:
    """Name of one of the ``outputs`` that the client wants → whether in binary; raises MalformedBody."""
    faults = Faults()
    default = (request.parameters or {}).get("binary_data_output", False)
    if not isinstance(default, bool):
        faults.append(f"parameter binary_data_output is {shown(default)}; it must be true or false")
    wanted: dict[str, bool] = {}
    for output in request.outputs if request.outputs is not None else map(_json_output, outputs):
        parameters = output.parameters or {}
        binary: Any = parameters.get("binary_data", default)
        if output.name not in outputs:
            faults.append(f"output {shown(output.name)} is not one; the outputs are {', '.join(outputs)}")
        if output.name in wanted:
            faults.append(f"output {shown(output.name)} is wanted twice")
        if not isinstance(binary, bool):
            faults.append(f"output {shown(output.name)}: binary_data is {shown(binary)}; it must be true or false")
        for name in parameters.keys() & {"classification", "shared_memory_region"}:
            faults.append(f"output {shown(output.name)}: {name} is not offered")
        wanted[output.name] = binary
    faults.stop()
    return wanted


def _json_output(name: str) -> RequestedOutput:
    return RequestedOutput(name=name)


def write_output(name: str, answers: Sequence[PredictionResponse], binary: bool) -> tuple[OutputTensor, bytes]:
    """One output of all answers, and the bytes that lie behind the JSON for it."""
    classes = len(answers[0].probabilities)
    output = outputs_of(classes, decided=True)[name]
    values = [output.value(answer) for answer in answers]
    if output.sizes:
        values = [value for row in values for value in row]
    tensor = OutputTensor(name=name, shape=output.shape(len(answers), classes), datatype=output.datatype)
    if not binary:
        return msgspec.structs.replace(tensor, data=values), b""
    if output.datatype == BYTES:
        texts = [value.encode() for value in values]
        raw = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    else:
        raw = np.array(values, DTYPES[output.datatype]).tobytes()
    return msgspec.structs.replace(tensor, parameters={"binary_data_size": len(raw)}), raw
