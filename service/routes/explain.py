"""POST /v1/explain: what each field of a row, or each word of its texts, adds to its prediction."""

import asyncio
from typing import Annotated, Any

import numpy as np
from litestar import Response, post
from litestar.params import QueryParameter
from msgspec import UNSET, Struct, UnsetType

from models.calibration.confidence import StackedPart
from models.calibration.logit import sigmoid
from models.explanation import CoalitionGame, describe_baseline, make_game
from models.games.contributions import METHODS, Contribution, Method
from models.games.word_game import WordGame
from models.rows import Row
from service.http.errors import InvalidQuery
from service.inference.fair_queue import Answer
from service.routes.openapi.description import PARAMETERS, TAKES, TIMEOUT, TIMING, Negotiated
from service.routes.openapi.refusals import PREDICTION_REFUSALS, refusals
from service.routes.predict import row_body, run_inference
from service.routes.request import AnyRequest, not_ready, parse_body, query_values, respond, services_of, table_of
from service.routes.schemas import ModelIdentity
from service.routes.table import Table

PARAMETER, OUTCOME = "method", "outcome"


def outcome_parameter(table: Table) -> dict[str, Any] | None:
    """Which class is explained, where there are more than two."""
    if len(table.schema.classes) == 2:
        return None
    return {
        "name": OUTCOME, "in": "query", "required": False,
        "schema": {"type": "string", "enum": list(table.schema.classes)},
        "description": "The class that is explained, against all others; by default the predicted one.",
    }  # fmt: skip


EXPLANATION_REFUSALS = refusals(
    (
        "a query parameter or its value that there is not",
        InvalidQuery(f'{PARAMETER} is "x"; it must be {" or ".join(METHODS)}'),
    ),
    beside=PREDICTION_REFUSALS,
)


class ExplainedPrediction(Struct, frozen=True):
    """``log_odds`` is ln(p / (1 − p)) of ``probability``, which is that of the explained class in ``/v1/predict``.

    ``models`` are those of the bundle's stack, if it has one: the weight of each, and what it says by itself.
    """

    outcome: str
    probability: float
    log_odds: float
    models: tuple[StackedPart, ...] | UnsetType = UNSET


class Baseline(Struct, frozen=True, kw_only=True):
    """The row with no field known: mean log-odds, the probability that these stand for, and what is averaged."""

    log_odds: float
    probability: float
    description: str


class ExplanationResponse(Struct, frozen=True, kw_only=True):
    """What each known field adds, the weightiest first, in log-odds of the ``positive`` class; above 0 speaks for it.

    By ``words`` each entry is of some words of a text, in their order, and not of a field.

    Of two classes the positive one is the last, of more the one that is explained, against all others. By ``shapley``
    the contributions sum to the prediction's log-odds minus the baseline's. ``text`` is what the model read.
    """

    model: ModelIdentity
    method: Method
    positive: str
    prediction: ExplainedPrediction
    baseline: Baseline
    fields: list[Contribution]
    text: str


@post(
    "/v1/explain", status_code=200, operation_id="explain", summary="What each field adds", tags=["predictions"],
    opt={TAKES: row_body, PARAMETERS: [outcome_parameter, TIMEOUT]}, response_headers=[TIMING],
    responses={200: Negotiated(ExplanationResponse, description="the contributions"), **EXPLANATION_REFUSALS},
)  # fmt: skip
async def explain(
    request: AnyRequest,
    method: Annotated[
        str,
        QueryParameter(
            name=PARAMETER, required=False, schema_extra={"enum": list(METHODS)},
            description="unknown: the change when the field is unknown; shapley: Shapley values; words: the change "
            "when words of a text are left out",
        ),
    ] = METHODS[0],
) -> Response[bytes]:  # fmt: skip
    """One row → what each field adds to its prediction. No prediction is counted, logged or tested for drift."""
    table = table_of(request)
    classes = table.schema.classes
    query = query_values(request, {PARAMETER: METHODS} | ({OUTCOME: classes} if len(classes) > 2 else {}))
    chosen = next(one for one in METHODS if one == query.get(PARAMETER, METHODS[0]))
    row = await parse_body(request, table.row)
    game, answer = await ask(request, row, chosen)
    bundle, first = answer.bundle, answer.predictions[0]
    explanation = game.explain([one.probabilities for one in answer.predictions], query.get(OUTCOME))
    probability = first.probabilities[bundle.schema.classes.index(explanation.outcome)]
    response = ExplanationResponse(
        model=ModelIdentity(bundle.name, bundle.version), method=explanation.method,
        positive=explanation.outcome,
        prediction=ExplainedPrediction(first.outcome, probability, explanation.log_odds, first.confidence.stacked),
        baseline=Baseline(
            log_odds=explanation.baseline_log_odds,
            probability=float(sigmoid(np.array(explanation.baseline_log_odds))),
            description=describe_baseline(bundle.schema, bundle.reference, explanation.method),
        ),
        fields=list(explanation.contributions), text=explanation.text,
    )  # fmt: skip
    return respond(request, response, answer)


async def ask(request: AnyRequest, row: Row, method: Method) -> tuple[CoalitionGame | WordGame, Answer]:
    """What explains a row, asked and answered by one bundle; raises as the batcher."""
    while True:
        batcher = services_of(request).batcher
        predictor = batcher.predictor
        if predictor is None:
            raise not_ready(batcher)
        # Some milliseconds of words, which other requests need not wait for.
        game = await asyncio.to_thread(make_game, row, predictor.bundle, method)
        answer = await run_inference(request, game.rows)
        if answer.bundle.version == predictor.bundle.version:
            return game, answer
        # Another bundle took over, which may give the same rows other texts: it is asked anew.
