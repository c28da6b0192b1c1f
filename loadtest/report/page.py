"""One page about a run: verdict, pictures, tables; it needs no network and no other file."""

from collections.abc import Iterable, Sequence
from html import escape

from loadtest.report.recording import Recording
from loadtest.report.server_series import Scrape, windows
from loadtest.report.slo import AT_LEAST
from loadtest.report.summary import Summary
from training.report.svg import STYLE as PLOT_STYLE
from training.report.svg import line_chart, share_bar

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; color: #222; background: #fff;
  max-width: 58rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
.passed { color: #00664d; } .failed { color: #a33c00; }
svg { display: block; width: 100%; height: auto; margin: 1rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .2rem .7rem; border-bottom: 1px solid #e2e2e2; font-weight: normal; }
th:first-child { text-align: left; padding-left: 0; } thead th { color: #555; border-bottom: 2px solid #888; }
.note { color: #555; font-size: .9rem; }
"""


def page(summary: Summary, recording: Recording, scrapes: Sequence[Scrape]) -> str:
    """The whole page."""
    verdict = "passed" if summary.passed else "failed" if summary.complete else "stopped"
    parts = [
        f"<h1>{escape(summary.scenario)}: <span class='{verdict}'>{verdict}</span></h1>",
        f"<p>{escape(summary.started)}, {summary.seconds:.0f} s, {escape(summary.arrivals)}, "
        f"{escape(summary.host)}. {summary.requests:,} requests; {summary.answers_checked:,} predictions checked, "
        f"{summary.measured.get('wrong_answers', 0):.0f} wrong answers. Load average of the machine "
        f"{summary.load_average[0]:.2f} before, {summary.load_average[1]:.2f} after.</p>",
        _verdict(summary), _faults(summary), _pictures(recording, scrapes), _time(summary), _capacity(summary),
        _percentiles(recording), _generator(summary),
    ]  # fmt: skip
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>Load test: {escape(summary.scenario)}</title><style>{STYLE}{PLOT_STYLE}</style></head>\n"
        f"<body>\n{chr(10).join(parts)}\n</body></html>\n"
    )


def _verdict(summary: Summary) -> str:
    rows = [
        (row.name, f"{'≥' if row.name in AT_LEAST else '≤'} {row.limit:g}", f"{row.measured:.4g}",
         "kept" if row.kept else "FAILED")
        for row in summary.verdict
    ]  # fmt: skip
    return _table(("", "limit", "measured", "verdict"), rows)


def _faults(summary: Summary) -> str:
    if not summary.faults:
        return ""
    return "<h2>What was wrong</h2><ul>" + "".join(f"<li>{escape(one)}</li>" for one in summary.faults) + "</ul>"


def _pictures(recording: Recording, scrapes: Sequence[Scrape]) -> str:
    seconds = sorted(recording.cells)
    latencies = [(second + 0.5, recording.between(second, second + 1, ["predict"]).latency_ms) for second in seconds]
    server = windows(scrapes)
    lines = {
        name: [(second, histogram.percentile(share)) for second, histogram in latencies]
        for name, share in (("median", 0.5), ("95 %", 0.95), ("99 %", 0.99))
    }
    due = [(second + 0.5, float(recording.between(second, second + 1).requests)) for second in seconds]
    done = [(second + 0.5, float(recording.done.get(second, 0))) for second in seconds]
    return "<h2>Over time</h2>" + "".join(
        (
            line_chart("Latency of single predictions, from when each was due", "ms", lines, logarithmic=True),
            line_chart(
                "What the service says of itself", "ms",
                {
                    "in the service": [(one.stop, one.http_ms) for one in server],
                    "queue": [(one.stop, one.queue_ms) for one in server],
                    "inference": [(one.stop, one.inference_ms) for one in server],
                },
                logarithmic=True,
            ),
            line_chart(
                "Rows of a batch, mean, and rows waiting", "rows",
                {
                    "batch": [(one.stop, one.batch_rows) for one in server],
                    "waiting": [(one.stop, one.queue_rows) for one in server],
                },
            ),
            line_chart("Requests due, and predictions answered", "per second", {"due": due, "answered": done}),
            line_chart(
                "Share of texts that the cache held, of the inference threads' time, and cores used", "1",
                {
                    "cache hits": [(one.stop, one.hit_share) for one in server],
                    "in inference": [(one.stop, one.busy_share) for one in server],
                    "cores of the service": [(one.stop, one.cpu_cores) for one in server],
                },
            ),
        )
    )  # fmt: skip


def _time(summary: Summary) -> str:
    if not summary.time_ms:
        return ""
    return (
        "<h2>Where the time of a single prediction went</h2>"
        + share_bar("Where the time went", summary.time_ms)
        + "<p class='note'>Means. Queue and inference are from each answer's Server-Timing header, the service's event "
        "loop from its http_request_seconds; the rest is network and the generator.</p>"
    )


def _capacity(summary: Summary) -> str:
    if summary.model is None or summary.knee_rate is None:
        return ""
    model = summary.model
    rows = [
        (f"{one.rate:.1f}", f"{one.predicted.throughput:.1f}", f"{one.throughput:.1f}", f"{one.throughput_error:+.0%}",
         f"{one.predicted.p99_ms:.0f}", f"{one.p99_ms:.0f}",
         "" if one.predicted.p99_ms == float("inf") else f"{one.p99_error:+.0%}")
        for one in summary.checks
    ]  # fmt: skip
    return (
        f"<h2>Capacity</h2><p>The knee is at {summary.knee_rate:.1f} requests/s. An inference takes "
        f"{model.a_ms:.2f} ms and {model.b_ms:.2f} ms for each row; batches of {model.max_batch_rows}, "
        f"{model.workers} at a time, would carry {model.max_rate:.0f}/s. Rates that the model was not fitted to:</p>"
        + _table(
            ("requests/s", "answered/s, predicted", "measured", "error", "p99 ms, predicted", "measured", "error"), rows
        )
    )


def _percentiles(recording: Recording) -> str:
    rows = []
    for kind in recording.kinds:
        cell = recording.between(kinds=[kind])
        latency = cell.latency_ms
        rows.append(
            (kind, f"{cell.requests:,}", f"{cell.rows:,}",
             *(f"{latency.percentile(share):.1f}" for share in (0.5, 0.95, 0.99, 1.0)),
             ", ".join(f"{status}: {count}" for status, count in sorted(cell.statuses.items())))
        )  # fmt: skip
    head = ("", "requests", "rows", "p50 ms", "p95 ms", "p99 ms", "most ms", "statuses")
    return "<h2>By kind of request</h2>" + _table(head, rows)


def _generator(summary: Summary) -> str:
    made = summary.generator
    said = f"It was the bottleneck: {made.bottleneck}." if made.bottleneck else "It was not the bottleneck."
    processes = f"{made.processes} process" + ("es" if made.processes != 1 else "")
    return (
        f"<h2>The generator</h2><p>{processes} used {made.cpu_cores:.2f} cores at "
        f"{made.requests_per_second:.0f} requests/s, {made.cpu_ms_per_request:.2f} ms each; it was late by "
        f"{made.late_p99_ms:.1f} ms (99th percentile). {escape(said)}</p>"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    body = "".join(
        f"<tr><th scope='row'>{escape(row[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in row[1:])}</tr>"
        for row in rows
    )
    titles = "".join(f"<th>{escape(one)}</th>" for one in head)
    return f"<div class='scroll'><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
