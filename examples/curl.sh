#!/bin/sh
# The HTTP API by curl: predictions, outcomes, explanation, drift, errors.
#
#   sh examples/curl.sh                    (BASE=http://host:port for a service elsewhere)
set -eu
BASE=${BASE:-http://127.0.0.1:8000}
CUMINGS='{"pclass": 1, "sex": "female", "name": "Cumings, Mrs. John Bradley", "age": 38, "sibsp": 1, "fare": 71.28,
          "ticket": "PC 17599", "cabin": "C85", "embarked": "C"}'

# ask STATUS ROUTE [BODY]: print the answer, and fail unless it has this status.
ask() {
    wanted=$1 route=$2
    shift 2
    echo "--- $route"
    answer=$(curl -sS --max-time 60 --retry 3 -w '\n%{http_code}' -H 'accept: application/json' \
        ${1:+-H 'content-type: application/json' --data-binary "$1"} "$BASE$route")
    status=${answer##*
}
    answer=${answer%
*}
    echo "$answer" | cut -c 1-400
    if [ "$status" != "$wanted" ]; then
        echo "curl.sh: $BASE$route answered $status, not $wanted" >&2
        exit 1
    fi
}

ask 200 /health/ready
ask 200 /v1/predict "$CUMINGS"
id=$(echo "$answer" | sed 's/^{"id":"\([^"]*\)".*/\1/')
ask 200 /v1/predict/batch "{\"rows\": [$CUMINGS, {\"pclass\": 3, \"sex\": \"male\", \"age\": 22}]}"
ask 200 "/v1/explain?method=shapley" "$CUMINGS"
# 404 from a service without a store: STORE=none sh examples/curl.sh
if [ "${STORE:-}" = none ]; then status=404; else status=200; fi
ask $status /v1/outcomes "{\"outcomes\": [{\"id\": \"$id\", \"outcome\": \"survived\"}]}"
ask 200 /v1/drift
ask 422 /v1/predict '{"pclass": 4, "sex": "male", "agee": 3}'
