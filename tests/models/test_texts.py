"""Texts of any length: what is not read is said, and length and rare tokens are bins like those of any other field."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.bert.tokenizer import Tokenizer
from models.bins.input_binner import InputBinner
from models.bundle.read import Bundle, read_bundle
from models.bundle.write import write_bundle
from models.prediction import Diagnosis
from models.predictor import Predictor
from models.reference import build_reference
from models.schema import Field, SchemaError, schema_of
from tests import reviews
from tests.tiny import ORIGIN, make_contents
from training.calibrate.record import fit_typicality
from training.data.table import Table
from training.fit.texts import describe_cut


@pytest.fixture(scope="module")
def table() -> Table:
    return reviews.table(400)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return reviews.tokenizer()


@pytest.fixture(scope="module")
def bundle(table: Table, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("reviews")
    contents = make_contents(table, folder, reviews.tokenizer().to_json().encode())
    return write_bundle(folder / "bundle", contents, ORIGIN)


def pieces(text: str, max_tokens: int = 512) -> list[str]:
    """The tokens of a text by the tokenizer's own words for them."""
    whole = reviews.tokenizer(max_tokens)
    return [str(whole._tokenizer.id_to_token(number)) for number in whole.token_ids([text])[0]]


@pytest.mark.parametrize("text", ["", "soup", "zabaglione soup", "Schweinshaxe 😀 für zwei", "again " * 300])
def test_a_text_is_measured_whole_however_long(text: str, tokenizer: Tokenizer) -> None:
    tokens = pieces(text)[1:-1]
    rare = sum(token.startswith("##") or token == "[UNK]" for token in tokens)
    assert tokenizer.measure([text]) == [(len(tokens), rare)]
    assert tokenizer.tokens_of_cut([text]) == ({0: len(tokens) + 2} if len(tokens) > 62 else {})


def test_what_just_fits_is_not_cut(tokenizer: Tokenizer) -> None:
    assert tokenizer.tokens_of_cut(["a " * 62, "a " * 63, "", "a " * 500]) == {1: 65, 3: 502}


def test_a_byte_is_at_least_a_token_whatever_the_alphabet() -> None:
    rng = np.random.default_rng(0)
    letters = [*"aZé1 .İΐᾂ가힣你😀नीா𝅘𝅥𝅮", "\u0301"]
    texts = ["".join(rng.choice(letters, 40)) for _ in range(300)]
    whole = reviews.tokenizer(512)
    assert all(one.tokens <= len(text.encode()) for one, text in zip(whole.measure(texts), texts, strict=True))


def test_the_bins_of_a_text_are_lengths_within_shares_of_rare_tokens(table: Table, tokenizer: Tokenizer) -> None:
    bins = table.schema.input_bins[1]
    assert (bins.lengths[0], bins.rare[0], bins.rare[-1]) == (0, 0, 1)
    assert len(bins.names) == (len(bins.lengths) - 1) * (len(bins.rare) - 1) + 1 <= 51
    assert bins.names[0] == f"0-{bins.lengths[1]:g} tokens, 0-{bins.rare[1]:g} rare"
    binner = InputBinner(table.schema, tokenizer)
    for text in ("again", "never again, cold soup", "Schweinshaxe zabaglione", "soup " * 400, None, ""):
        name = bins.names[binner(reviews.Review(review=text))[1]]
        if not text:
            assert name == "unknown"
            continue
        tokens = pieces(text)[1:-1]
        share = sum(token.startswith("##") for token in tokens) / len(tokens)
        length, shares = name.split(", ")
        low, high = (float(end) for end in length.removesuffix(" tokens").split("-"))
        assert low <= len(tokens) < high or (high == bins.lengths[-1] <= len(tokens))
        low, high = (float(end) for end in shares.removesuffix(" rare").split("-"))
        assert low <= share < high


def test_rows_are_binned_alike_alone_and_together(table: Table, tokenizer: Tokenizer) -> None:
    binner = InputBinner(table.schema, tokenizer)
    assert binner.of(table.rows[:50]) == [binner(row) for row in table.rows[:50]]
    assert binner.of([]) == []
    with pytest.raises(ValueError, match="the bins of review are cut by tokens, and there is no tokenizer"):
        InputBinner(table.schema)


def test_the_reference_counts_the_bins_of_texts(table: Table, tokenizer: Tokenizer) -> None:
    reference = build_reference(np.full(len(table), 0.5), table.rows, table.schema, tokenizer)
    counts = reference.inputs[1].counts
    numbers = np.bincount(InputBinner(table.schema, tokenizer).array(table.rows)[:, 1], minlength=len(counts))
    assert list(counts.values()) == numbers.tolist()
    assert 0 < counts["unknown"] < len(table) / 5
    # An edge is a quantile, so no text bin holds nearly all.
    assert max(counts.values()) < len(table) / 2


def test_a_text_in_another_language_is_odd_and_one_like_the_training_rows_is_not(
    table: Table, tokenizer: Tokenizer
) -> None:
    binner = InputBinner(table.schema, tokenizer)
    typicality = fit_typicality(table.rows, table.schema, np.random.default_rng(0), tokenizer)
    rows = [
        reviews.Review(stars=3, review=text)
        for text in (
            "Я никогда больше сюда не приду, суп был холодный", "asdkjh qwzx zxcmnb lkjqwe", "the best soup in town",
        )
    ]  # fmt: skip
    russian, gibberish, usual = typicality.p_values(binner.array(rows)).tolist()
    assert russian < 0.02
    assert gibberish < 0.02
    assert usual > 0.1


def test_p_values_of_new_texts_are_valid(table: Table, tokenizer: Tokenizer) -> None:
    """P(typicality ≤ t) ≤ t for rows like the training rows."""
    typicality = fit_typicality(table.rows, table.schema, np.random.default_rng(0), tokenizer)
    fresh, _ = reviews.reviews(1000, seed=5)
    p = typicality.p_values(InputBinner(table.schema, tokenizer).array(fresh))
    for t in (0.05, 0.1, 0.3):
        # Four standard errors of a share of 1,000 rows, and of the bag of 400.
        assert (p <= t).mean() <= t + 4 * (t * (1 - t) * (1 / 1000 + 1 / 400)) ** 0.5


def test_an_answer_says_what_it_did_not_read(bundle: Bundle) -> None:
    predictor = Predictor.load(bundle.folder)
    rows = [{"stars": 3, "review": "never again " * 60}, {"review": "never again"}, {"stars": 9 % 6}]
    whole = predictor.predict(rows)
    tokens = len(pieces(f"3 stars, {'never again ' * 60}"))
    assert tokens > 16
    assert [(one.field, one.message) for one in whole[0].confidence.warnings] == [
        ("review", f"the text has {tokens} tokens; the first 16 are read")
    ]
    assert whole[1].confidence.warnings == ()
    # A text that is in the cache has its warning too, and one that was encoded ahead.
    checked = predictor.rows.check(rows)
    assert predictor.predict_checked(checked, predictor.encode(checked)) == whole


def test_the_field_that_is_named_is_one_that_the_row_has(bundle: Bundle, tokenizer: Tokenizer) -> None:
    diagnosis = Diagnosis(bundle.record, bundle.reference, bundle.schema, tokenizer)
    rows = [reviews.Review(stars=1), reviews.Review(stars=1, review="soup"), reviews.Review()]
    found = diagnosis.predictions(np.zeros((3, 2)), rows, ["soup " * 90] * 3)
    assert [one.confidence.warnings[-1].field for one in found] == ["stars", "review", "review"]


def test_a_bundle_whose_texts_have_two_bins_is_read_as_ever(tmp_path: Path) -> None:
    plain = Table(reviews.SCHEMA, tuple(reviews.reviews(80)[0]), reviews.reviews(80)[1], "0" * 64)
    contents = make_contents(plain, tmp_path, reviews.tokenizer().to_json().encode())
    # As files of before the bins of texts: their bins lack both keys.
    for name in ("reference.json", "schema.json"):
        document = msgspec.json.decode(contents[name])  # type: ignore[arg-type]
        for each in document.get("inputs", ()):
            del each["bins"]["lengths"], each["bins"]["rare"]
        contents[name] = msgspec.json.encode(document)
    predictor = Predictor.load(write_bundle(tmp_path / "bundle", contents, ORIGIN).folder)
    assert read_bundle(tmp_path / "bundle").schema.input_bins[1].names == ("known", "unknown")
    (one,) = predictor.predict([{"review": "soup"}])
    assert one.input_bins[1] == 0


def field(**more: object) -> object:
    return {"name": "note", "type": "text", **more}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (field(bins=[0, 5]), r"fields\[1\]\.rare_bins: they must be at least two numbers"),
        (field(rare_bins=[0, 1]), r"fields\[1\]\.bins: they must be at least two numbers"),
        (field(bins=[5, 0], rare_bins=[0, 1]), r"bins: they must be at least two numbers, each above"),
        (field(bins=list(range(30)), rare_bins=[0, 0.2, 1]), r"bins: with rare_bins they make 58 bins, more than 50"),
        ({"name": "n", "type": "number", "bins": [0, 1], "rare_bins": [0, 1]}, "rare_bins: a field of the type number"),
    ],
)
def test_bins_of_texts_that_cannot_be_used_are_named(made: object, message: str) -> None:
    document = reviews.DOCUMENT | {"fields": [reviews.DOCUMENT["fields"][1], made]}
    with pytest.raises(SchemaError, match=message):
        schema_of(document | {"text": ["{review}"]})


def test_rows_do_not_change_their_type_with_the_bins(table: Table) -> None:
    with_bins = next(field for field in table.schema.fields if field.name == "review")
    assert isinstance(with_bins, Field)
    assert with_bins.bins
    assert type(table.rows[0]) is reviews.Review
    (row,) = reviews.ROWS.check([table.rows[0]])
    assert row == table.rows[0]


def test_training_says_how_many_texts_are_cut(tokenizer: Tokenizer) -> None:
    assert describe_cut(["soup", "soup " * 100, "a " * 70], tokenizer) == (
        "2 of 3 texts have more than 64 tokens, up to 102; the first 64 of each are read"
    )
    assert describe_cut(["soup"], tokenizer) == ""
