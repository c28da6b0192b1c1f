"""A bundle is served whole and unchanged, or refused by name. A tiny BERT; the real one is in test_real.py."""

import contextlib
import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from models.bundle.manifest import MANIFEST, BundleError, sha256_of
from models.bundle.read import Bundle, read_bundle
from models.bundle.verify import check_record, check_reference
from models.bundle.weights import MAX_HEADER_BYTES
from models.bundle.write import write_bundle
from models.calibration.prior_shift import PriorShift
from models.predictor import Predictor
from models.schema import ClassName, Label
from tests.tiny import CONFIG, FILES, ORIGIN, Contents
from tests.titanic import SCHEMA


@pytest.fixture
def copy(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_bundle.folder, tmp_path / "tiny"))


def record_again(folder: Path) -> None:
    """Make the manifest agree with the files, so that the deeper checks are the ones that speak."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    for name in FILES:
        manifest["files"][name] = {"sha256": sha256_of(folder / name), "size": (folder / name).stat().st_size}
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_what_was_written_is_read(tiny_bundle: Bundle, tiny_contents: Contents) -> None:
    assert {path.name for path in tiny_bundle.folder.iterdir()} == {*FILES, MANIFEST}
    assert tiny_bundle.version == sha256_of(tiny_bundle.folder / MANIFEST)[:12]
    assert (tiny_bundle.name, tiny_bundle.evaluation, tiny_bundle.config) == ("tiny", {"rows": 60}, CONFIG)
    assert msgspec.json.encode(tiny_bundle.record) == tiny_contents["calibration.json"]
    assert tiny_bundle.manifest.origin == ORIGIN


def test_a_bundle_holds_what_its_feature_knows(tiny_contents: Contents, tiny_bundle: Bundle, tmp_path: Path) -> None:
    assert len(tiny_bundle.known.by_ticket) > 50
    without = {name: content for name, content in tiny_contents.items() if name != "feature.json"}
    with pytest.raises(BundleError, match=r"feature.json is missing, and schema.json names the feature titanic"):
        write_bundle(tmp_path / "without", without, ORIGIN)
    plain = msgspec.structs.replace(SCHEMA, feature=None, text=("{pclass}", "{sex}", "{age}"))
    alone = write_bundle(tmp_path / "alone", {**without, "schema.json": msgspec.json.encode(plain)}, ORIGIN)
    assert (alone.known, alone.name) == (None, "titanic")
    shutil.copy(tiny_bundle.folder / "feature.json", alone.folder)
    with pytest.raises(BundleError, match=r"manifest.json: files does not name feature.json"):
        read_bundle(alone.folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text": ("{pclass}", "{nothing}")}, r"schema.json: text\[1\]: {nothing} is no field"),
        ({"feature": "magic"}, "schema.json: feature: there is no feature magic"),
        (
            {"fields": SCHEMA.fields[:3], "text": ("{pclass}",)},
            "schema.json: feature: titanic reads the fields age, sibsp",
        ),
        (
            {"examples": [{"label": "x", "row": {"pclass": 4, "sex": "male"}}]},
            r"schema.json: examples\[0\].row: pclass is 4",
        ),
        ({"fields": SCHEMA.fields[::-1]}, "reference.json has other bins of the inputs|typicality has other bins"),
        ({"label": Label(column="y", classes=tuple(ClassName(value=v, name=v) for v in "ab"))}, "id2label is"),
        ({"label": Label(column="y", classes=tuple(ClassName(value=v, name=v) for v in "abc"))}, "id2label is"),
    ],
)
def test_a_schema_that_the_rest_does_not_fit_is_refused(
    tiny_contents: Contents, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    document = msgspec.to_builtins(SCHEMA) | msgspec.to_builtins(change)
    if "label" in change or "fields" in change:
        document["examples"] = []
    with pytest.raises(BundleError, match=message):
        write_bundle(tmp_path / "other", {**tiny_contents, "schema.json": msgspec.json.encode(document)}, ORIGIN)


def test_a_bundle_of_the_format_before_is_refused_with_the_command(copy: Path) -> None:
    manifest = json.loads((copy / MANIFEST).read_bytes())
    manifest["origin"]["data"] = {"sha256": "0" * 64, "rows": 60, "survived": 30}
    (copy / MANIFEST).write_text(json.dumps({**manifest, "format_version": 1}))
    with pytest.raises(BundleError, match=r"format version 1; this program reads 2: make the bundle anew with ./run"):
        read_bundle(copy)


def test_a_bundle_holds_exactly_its_files(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="holds exactly"):
        write_bundle(tmp_path / "none", {}, ORIGIN)


def test_a_bundle_is_shifted_from_its_training_rows_prevalence(tiny_bundle: Bundle) -> None:
    shifted = tiny_bundle.shifted(0.1)
    assert shifted.record.map.prior_shift == PriorShift(training=0.5, target=0.1)
    assert shifted.shifted(0.7).record.map.steps[:-1] == tiny_bundle.record.map.steps
    assert shifted.version == tiny_bundle.version
    for wrong in (0.0, 1.0, -0.2, float("nan")):
        with pytest.raises(ValueError, match="target prevalence"):
            tiny_bundle.shifted(wrong)
    for survived, rows in ((0, 60), (60, 60), (0, 0)):
        classes = {"died": rows - survived, "survived": survived}
        origin = msgspec.structs.replace(ORIGIN, data=msgspec.structs.replace(ORIGIN.data, classes=classes, rows=rows))
        manifest = msgspec.structs.replace(tiny_bundle.manifest, origin=origin)
        with pytest.raises(BundleError, match=f"{survived} of {rows} rows are of the class survived"):
            msgspec.structs.replace(tiny_bundle, manifest=manifest).shifted(0.1)


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleError, match=f"{name} is missing"):
        read_bundle(copy)


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_flipped_bit_is_refused(copy: Path, tiny_bundle: Bundle, name: str, data: st.DataObject) -> None:
    content = bytearray((tiny_bundle.folder / name).read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    (copy / name).write_bytes(content)
    if name == MANIFEST:
        # A changed manifest is another version, if it is a manifest at all: never this one.
        with contextlib.suppress(BundleError):
            assert read_bundle(copy).version != tiny_bundle.version
    else:
        with pytest.raises(BundleError, match=name):
            read_bundle(copy)


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_a_truncated_file_is_refused(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(BundleError, match=name):
        read_bundle(copy)


def test_a_foreign_file_a_link_and_a_missing_folder_are_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a readable folder"):
        read_bundle(tmp_path / "nowhere")
    (copy / "code.py").write_text("")
    with pytest.raises(BundleError, match=r"code\.py does not belong"):
        read_bundle(copy)
    (copy / "code.py").unlink()
    (copy / "README.md").rename(tmp_path / "README.md")
    (copy / "README.md").symlink_to(tmp_path / "README.md")
    with pytest.raises(BundleError, match=r"README\.md is not a regular file"):
        read_bundle(copy)


def change(tensors: dict[str, np.ndarray], how: str) -> None:
    name = "bert.encoder.layer.1.output.dense.weight"
    if how == "nan":
        tensors[name][2, 3] = np.nan
    elif how == "infinite":
        tensors["classifier.bias"][1] = np.inf
    elif how == "missing":
        del tensors[name]
    elif how == "added":
        tensors["classifier.extra"] = np.zeros(3, np.float32)
    elif how == "shape":
        tensors[name] = np.zeros((8, 4), np.float32)
    elif how == "dtype":
        tensors[name] = tensors[name].astype(np.float16)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nan", r"layer\.1\.output\.dense\.weight holds a value that is not finite"),
        ("infinite", r"classifier\.bias holds a value that is not finite"),
        ("missing", r"layer\.1\.output\.dense\.weight is missing"),
        ("added", r"classifier\.extra is not part of the model"),
        ("shape", r"layer\.1\.output\.dense\.weight has shape \[8, 4\], it must be \[4, 8\]"),
        ("dtype", r"layer\.1\.output\.dense\.weight has dtype 'F16'"),
    ],
)
def test_changed_tensors_are_named(copy: Path, how: str, message: str) -> None:
    tensors = load_file(copy / "model.safetensors")
    change(tensors, how)
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    record_again(copy)
    with pytest.raises(BundleError, match=f"model.safetensors: tensor .*{message}"):
        read_bundle(copy)


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(path: Path, header: str, data: bytes, length: int | None = None) -> None:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header.encode() + data)


# Only harmless numbers stand here. What has ended MLX's process are shapes whose product overflows, sizes beyond the
# file and below zero, and nesting without an end; the checks that refuse these headers refuse those.
def longer(header: dict[str, Any]) -> None:
    header["classifier.bias"]["shape"] = [3]


def reversed_offsets(header: dict[str, Any]) -> None:
    header["classifier.bias"]["data_offsets"] = header["classifier.bias"]["data_offsets"][::-1]


def overlapping(header: dict[str, Any]) -> None:
    header["classifier.bias"]["data_offsets"] = [0, 8]


def not_numbers(header: dict[str, Any]) -> None:
    header["classifier.bias"]["data_offsets"] = [0.0, True]


def not_a_tensor(header: dict[str, Any]) -> None:
    header["classifier.bias"] = 3


def other_metadata(header: dict[str, Any]) -> None:
    header["__metadata__"] = {"format": "mlx"}


@pytest.mark.parametrize("craft", [longer, reversed_offsets, overlapping, not_numbers, not_a_tensor, other_metadata])
def test_crafted_headers_are_refused(copy: Path, craft: Callable[[dict[str, Any]], None]) -> None:
    header, data = split(copy / "model.safetensors")
    craft(header)
    join(copy / "model.safetensors", json.dumps(header), data)
    record_again(copy)
    with pytest.raises(BundleError, match=r"model\.safetensors: (Error while deserializing|the metadata)"):
        read_bundle(copy)


@pytest.mark.parametrize("length", [0, 1, MAX_HEADER_BYTES + 1])
def test_a_header_that_lies_about_its_length_is_refused(copy: Path, length: int) -> None:
    header, data = split(copy / "model.safetensors")
    join(copy / "model.safetensors", json.dumps(header), data, length)
    record_again(copy)
    with pytest.raises(BundleError, match=r"model\.safetensors: the header claims"):
        read_bundle(copy)


def test_repeated_names_nesting_and_trailing_bytes_are_refused(copy: Path) -> None:
    path = copy / "model.safetensors"
    header, data = split(path)
    other = json.dumps({"classifier.bias": header["classifier.weight"]})[1:-1]
    for text, tail, message in (
        (json.dumps(header)[:-1] + "," + other + "}", b"", "invalid offset|not fully covered"),
        ('{"a":{"b":', b"", "invalid JSON"),
        ("[]", b"", "invalid JSON"),
        (json.dumps(header), b"\0\0\0\0", "not fully covered"),
    ):
        join(path, text, data + tail)
        record_again(copy)
        with pytest.raises(BundleError, match=message):
            read_bundle(copy)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_size", 10**9, "hidden_size is 1000000000"),
        ("hidden_size", 4.0, "hidden_size is 4.0"),
        ("num_attention_heads", 3, "not a multiple of num_attention_heads 3"),
        ("id2label", {"0": "survived", "1": "died"}, "id2label is"),
        ("model_type", "gpt2", "model_type is .gpt2., it must be .bert. or .distilbert."),
        ("hidden_act", "relu", "hidden_act is relu"),
        ("layer_norm_eps", -1, "layer_norm_eps is -1"),
        ("vocab_size", 100, "token id 30521 is outside the vocabulary of 100"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(copy: Path, field: str, value: object, message: str) -> None:
    (copy / "config.json").write_text(json.dumps({**CONFIG, field: value}))
    record_again(copy)
    with pytest.raises(BundleError, match=message):
        read_bundle(copy)


@pytest.mark.parametrize(
    "name", ["schema.json", "calibration.json", "reference.json", "evaluation.json", "config.json"]
)
@pytest.mark.parametrize("content", [b"", b"[", b"{}x", b"\xff", b"[" * 100_000, b'{"unknown": 1}'])
def test_files_of_another_form_are_named(copy: Path, name: str, content: bytes) -> None:
    if (name, content) == ("evaluation.json", b'{"unknown": 1}'):
        return
    (copy / name).write_bytes(content)
    record_again(copy)
    with pytest.raises(BundleError, match=name):
        read_bundle(copy)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (("normalizer",), {"type": "Replace", "pattern": {"Regex": "a+"}, "content": ""}, "normalizer"),
        (("pre_tokenizer",), {"type": "Split", "pattern": {"Regex": "a+"}, "behavior": "Isolated"}, "Split"),
        (("decoder",), {"type": "Replace", "pattern": {"Regex": "a"}, "content": ""}, "Replace"),
        (("model", "type"), "BPE", "BPE"),
        (("model", "unk_token"), "no such word", "unknown words is not in the vocabulary"),
        (("model", "vocab"), {str(number): number for number in range(300_000)}, "more than 150000 words"),
        (("post_processor",), None, "post_processor"),
        (("post_processor", "single"), [], "must hold that text once"),
        (("post_processor", "single"), [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}] * 1000, "length <= 8"),
        (("post_processor", "special_tokens", "[CLS]", "ids"), [300_000], "ids"),
        (("post_processor", "special_tokens", "[CLS]", "ids"), [30522], "token id 30522 is outside the vocabulary"),
    ],
)
def test_a_tokenizer_that_is_not_berts_is_refused(
    copy: Path, part: tuple[str, ...], value: object, message: str
) -> None:
    whole = json.loads((copy / "tokenizer.json").read_bytes())
    place = whole
    for key in part[:-1]:
        place = place[key]
    place[part[-1]] = value
    (copy / "tokenizer.json").write_text(json.dumps(whole))
    record_again(copy)
    with pytest.raises(BundleError, match=rf"tokenizer\.json: .*{message}"):
        read_bundle(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"rows": 1000000000000000000000000000000}', "holds an integer of more than 64 bits"),
        (b'{"rows": ' + b"[" * 40 + b"]" * 40 + b"}", "nested deeper than 32 levels"),
        (b'{"rows": [' + b"0," * 300_000 + b"0]}", "more than 300000 values"),
    ],
)
def test_an_evaluation_that_cannot_be_encoded_is_refused(copy: Path, content: bytes, message: str) -> None:
    (copy / "evaluation.json").write_bytes(content)
    record_again(copy)
    with pytest.raises(BundleError, match=rf"evaluation\.json.* {message}"):
        read_bundle(copy)


def test_a_reference_of_other_bins_is_refused(copy: Path) -> None:
    reference = json.loads((copy / "reference.json").read_bytes())
    reference["inputs"][0]["bins"]["field"] = "__class__"
    (copy / "reference.json").write_text(json.dumps(reference))
    record_again(copy)
    with pytest.raises(BundleError, match=r"reference\.json has other bins"):
        read_bundle(copy)


def test_a_name_that_would_forge_a_log_line_is_refused(copy: Path) -> None:
    for name in ("titanic\nready: all is well", "titanic\n"):
        schema = json.loads((copy / "schema.json").read_bytes())
        (copy / "schema.json").write_text(json.dumps({**schema, "name": name}))
        record_again(copy)
        with pytest.raises(BundleError, match=r"schema\.json: name: "):
            read_bundle(copy)


def test_a_refusal_is_one_printable_line_of_bounded_length(copy: Path) -> None:
    message = str(BundleError("config.json: \x1b[2J\n" + "x" * 10_000_000 + "\u202e"))
    assert message.startswith("config.json: \\x1b[2J\\n")
    assert message.isprintable()
    assert len(message) <= 500
    Path(os.fsdecode(os.fsencode(copy) + b"/\xff\n")).touch()
    with pytest.raises(BundleError, match=r"\\udcff\\n does not belong"):
        read_bundle(copy)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_is_refused_and_not_waited_for(copy: Path) -> None:
    for name in (MANIFEST, "model.safetensors", "README.md"):
        (copy / name).rename(copy.parent / name)
        os.mkfifo(copy / name)
        with pytest.raises(BundleError, match=rf"{re.escape(name)} is not a regular file"):
            read_bundle(copy)
        (copy / name).unlink()
        (copy.parent / name).rename(copy / name)


def test_finite_weights_that_overflow_are_refused(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    tensors["bert.encoder.layer.1.intermediate.dense.weight"][:] = 3e38
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    record_again(copy)
    with pytest.raises(BundleError, match=r"model\.safetensors: the model's logits are not finite"):
        Predictor.load(copy)


def test_a_new_bundle_replaces_the_old_whole(tiny_contents: Contents, tmp_path: Path) -> None:
    first = write_bundle(tmp_path / "b", tiny_contents, ORIGIN)
    second = write_bundle(tmp_path / "b", {**tiny_contents, "README.md": b"# new\n"}, ORIGIN)
    assert first.version != second.version
    assert (tmp_path / "b" / "README.md").read_bytes() == b"# new\n"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_failed_write_leaves_the_old_bundle_and_nothing_else(tiny_contents: Contents, tmp_path: Path) -> None:
    first = write_bundle(tmp_path / "b", tiny_contents, ORIGIN)
    with pytest.raises(BundleError, match=r"calibration\.json"):
        write_bundle(tmp_path / "b", {**tiny_contents, "calibration.json": b"{}"}, ORIGIN)
    with pytest.raises(BundleError, match="holds exactly"):
        write_bundle(tmp_path / "b", {"config.json": b"{}"}, ORIGIN)
    assert read_bundle(tmp_path / "b").version == first.version
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_a_bundle_of_more_classes_has_its_cells_thresholds_intervals_and_steps(
    penguins_bundle: Bundle, tiny_bundle: Bundle
) -> None:
    record, schema, two = penguins_bundle.record, penguins_bundle.schema, tiny_bundle.record
    assert check_record(record, schema) is record
    intervals, conformal = record.venn_abers, record.conformal
    for fault, message in (
        ({"venn_abers": two.venn_abers}, "venn_abers must be one of two classes, and one for each of more"),
        ({"venn_abers": intervals[:2]}, "venn_abers must be"),
        ({"conformal": msgspec.structs.replace(conformal, thresholds=(0.5, 0.5))}, "thresholds must be 3"),
        (
            {"conformal": msgspec.structs.replace(conformal, by="island", groups={"a": (0.5, 0.5, 0.5)})},
            "the sets are by island, with other groups than schema.json has",
        ),
        (
            {"conformal": msgspec.structs.replace(conformal, by="moon", groups={"a": (0.5, 0.5, 0.5)})},
            "the sets are by moon",
        ),
        ({"map": two.map}, "the step platt is for 2 classes; there are 3"),
    ):
        with pytest.raises(BundleError, match=message):
            check_record(msgspec.structs.replace(record, **fault), schema)
    cells = msgspec.structs.replace(penguins_bundle.reference, probability_counts=(60,))
    with pytest.raises(BundleError, match="probability_counts must be 21 counts"):
        check_reference(cells, schema)
    with pytest.raises(BundleError, match="a target prevalence is of the positive of two classes; tiny has 3"):
        penguins_bundle.shifted(0.2)
