"""A table of one's own, from the CSV to a bundle that is calibrated anew: describe, edit, fit, serve, predict, report
outcomes, export, recalibrate, promote.

./run python examples/own_table.py [FOLDER]      (default: artifacts/own_table; some minutes on two cores)

The table is of 569 tumours, whose cells were measured under a microscope (scikit-learn's breast cancer data).
"""

import csv
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from sklearn.datasets import load_breast_cancer

ROOT = Path(__file__).parents[1]
MODULES = {"train": ["training"], "serve": ["service"], "export": ["service", "export"]}
QUICK = os.environ.get("OWN_TABLE_STEPS")
"""Steps of each fine-tuning, to try the walk in less time."""

Row = dict[str, Any]


def run(words: str) -> None:
    """What `./run WORDS` does in a terminal."""
    print(f"\n$ ./run {words}", flush=True)
    subprocess.run(command(words), check=True, cwd=ROOT)


def command(words: str) -> list[str]:
    name, *rest = shlex.split(words)
    return [sys.executable, "-m", *MODULES[name], *rest]


def write_tables(folder: Path) -> tuple[Path, Path, Path]:
    """Three files: rows to train on, rows that come later, and rows that nothing is fitted to."""
    data = load_breast_cancer(as_frame=True)
    table = data.data[[name for name in data.feature_names if name.startswith("mean ")]]
    table = table.assign(diagnosis=["benign" if label else "malignant" for label in data.target])
    table = table.sample(frac=1, random_state=0)
    parts = {"tumours.csv": table[:329], "later.csv": table[329:449], "unseen.csv": table[449:]}
    for name, rows in parts.items():
        rows.to_csv(folder / name, index=False)
    first, later, unseen = (folder / name for name in parts)
    return first, later, unseen


def describe(data: Path, table: Path) -> None:
    """The description, and two edits of it as one would make them by hand."""
    run(f"train describe {data} --label diagnosis --name tumours --out {table}")
    text = table.read_text()
    for before, after in (('row = "row"', 'row = "tumour"'), ('question = "', 'question = "Is it malignant? ')):
        text = text.replace(before, after, 1)
    table.write_text(text)


def serve(bundle: Path, store: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A service of the bundle that keeps the rows it is asked about."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = f"serve --bundle {bundle} --port {port} --store {store} --store-inputs row --grace-seconds 0"
    print(f"\n$ ./run {words} &", flush=True)
    process = subprocess.Popen(command(words), cwd=ROOT)
    base = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            ask(f"{base}/health/ready")
        except OSError:
            time.sleep(0.2)
        else:
            return process, base
    process.kill()
    raise SystemExit("own_table.py: the service did not become ready")


def ask(url: str, body: Any = None) -> Any:
    """The JSON that the service answers."""
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, content, {"content-type": "application/json"} if content else {})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def predict_and_report(base: str, later: Path) -> None:
    """Ask for the later rows, and report what became true of each."""
    schema = ask(f"{base}/v1/model")["schema"]
    columns = {field.get("column", field["name"]): field["name"] for field in schema["fields"]}
    names = {each["value"]: each["name"] for each in schema["label"]["classes"]}
    with later.open(newline="") as file:
        lines = list(csv.DictReader(file))
    rows: list[Row] = [{columns[name]: float(cell) for name, cell in line.items() if name in columns} for line in lines]
    predictions = ask(f"{base}/v1/predict/batch", {"rows": rows})["predictions"]
    for prediction, line in zip(predictions[:3], lines, strict=False):
        low, high = prediction["confidence"]["interval"]
        print(f"P({names[schema['label']['classes'][-1]['value']]}) = {prediction['probability']:.3f}, interval "
              f"{low:.3f} to {high:.3f}; it was {line['diagnosis']}")  # fmt: skip
    outcomes = [
        {"id": prediction["id"], "outcome": names[line["diagnosis"]]}
        for prediction, line in zip(predictions, lines, strict=True)
    ]
    print(f"outcomes: {ask(f'{base}/v1/outcomes', {'outcomes': outcomes})['counted']} counted")


def main(arguments: list[str]) -> int:
    folder = Path(arguments[0] if arguments else ROOT / "artifacts" / "own_table").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    data, later, unseen = write_tables(folder)
    table, bundle, store = folder / "tumours.toml", folder / "tumours", folder / "predictions.sqlite"
    store.unlink(missing_ok=True)
    describe(data, table)
    run(f"train fit --data {data} --table {table} --out {bundle}{f' --seeds 1 --max-steps {QUICK}' if QUICK else ''}")
    process, base = serve(bundle, store)
    try:
        predict_and_report(base, later)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    run(f"export --store {store} --labelled-only --with-rows {folder / 'export.csv'}")
    run(f"train recalibrate {bundle} --data {folder / 'export.csv'} --out {folder / 'next'}")
    # Exit code 1 says that the new bundle may not take the old one's place: with so few rows, the likely verdict.
    words = f"train promote {folder / 'next'} --over {bundle} --data {unseen}"
    print(f"\n$ ./run {words}", flush=True)
    return 0 if subprocess.run(command(words), cwd=ROOT).returncode in (0, 1) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"own_table.py: {error}")
