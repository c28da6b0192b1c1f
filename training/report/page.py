"""The evaluation as one page: pictures and tables in a single HTML file that needs nothing else."""

from collections.abc import Sequence
from html import escape

from models.schema import Schema
from training.evaluate.evaluation import AnyEvaluation, Evaluation
from training.report.figures import Figures
from training.report.names import plural
from training.report.seeds import headline, mean_sd
from training.report.svg import STYLE, Plot
from training.report.tables import baselines_verdict, better_baseline, tables

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light; }}
body {{ font: 16px/1.5 system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; color: #222; background: #fff;
  max-width: 68rem; margin: 0 auto; padding: 1rem; }}
h1 {{ font-size: 1.6rem; line-height: 1.25; margin: .5rem 0; }} h2 {{ font-size: 1.15rem; margin: 0 0 .4rem; }}
.lead {{ color: #444; max-width: 46rem; }}
.key {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 9.5rem), 1fr)); gap: .75rem;
  margin: 1.25rem 0 2rem; padding: 0; list-style: none; }}
.key li {{ border-top: 3px solid #0072b2; padding-top: .35rem; }}
.key b {{ display: block; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }}
.key span {{ color: #555; font-size: .85rem; display: block; }}
.plots {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 2rem 2.5rem; }}
figure {{ margin: 0; break-inside: avoid; max-width: 34rem; }}
figcaption, .note {{ color: #555; font-size: .85rem; line-height: 1.4; max-width: 46rem; }}
svg {{ display: block; width: 100%; height: auto; }}
section {{ margin: 2.25rem 0 0; break-inside: avoid; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; margin: .25rem 0 .5rem; }}
th, td {{ text-align: right; padding: .22rem .7rem; border-bottom: 1px solid #e2e2e2; font-weight: normal;
  vertical-align: top; }}
td {{ white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
thead th {{ border-bottom: 2px solid #888; color: #555; }}
tr.part th {{ padding-left: .9rem !important; color: #555; }}
footer {{ margin: 2.5rem 0 1rem; color: #666; font-size: .85rem; }}
@media (max-width: 30rem) {{
  body {{ padding: .75rem; }} table {{ font-size: .76rem; }} th, td {{ padding: .22rem .25rem; }}
  .many {{ font-size: .7rem; }} .many td {{ white-space: normal; }} .many th, .many td {{ padding: .22rem .15rem; }} }}
@media print {{ body {{ font-size: 10pt; max-width: none; padding: 0; }}
  .plots {{ grid-template-columns: 1fr 1fr; gap: 1rem; }}
  .scroll {{ overflow: visible; }} table {{ font-size: 8pt; }} th, td {{ padding: .1rem .3rem; }} }}
{style}</style>
</head>
<body>
<h1>{title}</h1>
<p class="lead">{better}{headline}{rows} {plural}. {how}.</p>
<ul class="key">
{key}
</ul>
<div class="plots">
{plots}
</div>
{tables}
<footer>± is one standard error; the JSON of the evaluation has every figure with its standard error and 95 %
interval.</footer>
</body>
</html>
"""


def report(schema: Schema, evaluation: AnyEvaluation, plots: Sequence[Plot]) -> str:
    """The page of a bundle with this schema."""
    better = better_baseline(evaluation)
    return PAGE.format(
        title=escape(f"How good are the probabilities of “{schema.name}”?"), style=STYLE, rows=evaluation.rows,
        plural=escape(plural(schema)), better=f"<strong>{escape(better)}</strong> " if better else "",
        headline=f"<strong>{escape(over_seeds)}</strong> " if (over_seeds := headline(evaluation)) else "",
        how=escape(evaluation.how[0].upper() + evaluation.how[1:]), key=_key(evaluation),
        plots="\n".join(map(_figure, plots)),
        tables="\n".join(_table(table, evaluation) for table in tables(evaluation)),
    )  # fmt: skip


def _key(evaluation: AnyEvaluation) -> str:
    scores, sets = evaluation.calibrated, evaluation.sets
    if isinstance(evaluation, Evaluation):
        which, error = "10 bins", evaluation.calibrated.calibration_error
    else:
        which, error = "classwise", evaluation.calibrated.classwise_error
    seeds = evaluation.seeds
    over_seeds = (("log loss, mean over seeds", mean_sd(seeds.log_loss, 3), "± between seeds"),) if seeds else ()
    cards = (
        *over_seeds,
        (f"log loss, seed {seeds.serves}, which serves" if seeds else "log loss",
         f"{scores.log_loss.value:.3f} ± {scores.log_loss.standard_error:.3f}",
         f"{scores.log_loss_if_calibrated.expected:.3f} if the probabilities were true"),
        (f"calibration error, {which}", f"{error.value.value:.3f} ± {error.value.standard_error:.3f}",
         f"{error.noise_floor:.3f} by chance alone (p {error.p_value:.3f})"),
        ("accuracy", f"{scores.accuracy.value:.1%}",
         f"95 % interval {scores.accuracy.low:.1%} to {scores.accuracy.high:.1%}"),
        ("prediction sets", f"{sets.overall.value:.1%}", f"hold the outcome; {sets.nominal:.0%} were promised"),
    )  # fmt: skip
    return "\n".join(
        f"<li>{what}<b>{escape(figure)}</b><span>{escape(more)}</span></li>" for what, figure, more in cards
    )


def _figure(plot: Plot) -> str:
    return (
        f"<figure><h2>{escape(plot.title)}</h2>{plot.inline()}<figcaption>{escape(plot.caption)}</figcaption></figure>"
    )


def _table(figures: Figures, evaluation: AnyEvaluation) -> str:
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in figures.columns)
    body = "\n".join(map(_row, figures.rows))
    verdict = ""
    if figures.title.startswith("Baselines"):
        verdict = "".join(f"<li>{escape(line)}</li>" for line in baselines_verdict(evaluation).splitlines())
        verdict = f'<ul class="note">{verdict}</ul>'
    size = "many" if len(figures.columns) > 4 else ""
    return (
        f'<section><h2>{escape(figures.title)}</h2><div class="scroll"><table class="{size}"><thead><tr>{head}</tr>'
        f'</thead><tbody>\n{body}\n</tbody></table></div><p class="note">{escape(figures.note)}</p>{verdict}</section>'
    )


def _row(row: tuple[str, ...]) -> str:
    name, part = row[0].removeprefix("… "), row[0].startswith("… ")
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
    return f'<tr{" class=part" if part else ""}><th scope="row">{escape(name)}</th>{cells}</tr>'
