"""Damage to a bundle, by number: what an attacker who can write its files, and their checksums, may put there."""

import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.bundle.manifest import FOLDER_MAX_BYTES, MANIFEST, sha256_of
from models.bundle.verify import MAX_VALUES

JSON_FILES = (
    "config.json", "schema.json", "calibration.json", "feature.json", "reference.json", "evaluation.json",
    "precisions.json", "training_rows.json", "selftest.json", MANIFEST,
)  # fmt: skip
OTHER_FILES = ("tokenizer.json", "tokenizer_config.json", "README.md", "model.safetensors")
FILES = JSON_FILES + OTHER_FILES
RAW = {
    "nan": "NaN", "infinity": "-Infinity", "1e999": "1e999", "digits": "9" * 5000, "number": "1" + "0" * 300,
    "nested lists": "[" * 2000 + "]" * 2000, "nested objects": '{"a":' * 2000 + "1" + "}" * 2000,
    "surrogate": '"\\ud800"', "control": '"\\u0000\\n\\u001b[2J"', "repeated key": '{"a":1,"a":[2]}',
}  # fmt: skip
"""Fragments of text that json.dumps would not write."""
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 0.5, -0.0, 1e-308, 5e-324, 1e308, -1e308, 1e17, 2**31, 2**53 + 1, 2**63, 2**64,
    -(2**63) - 1, 10**30, "", "a", "x" * 300_000, "../../../etc/passwd", "/dev/zero", "\u202e\u0007", [], {}, [[]],
    [0] * 100_000, [None], ["a"], {"": None}, {"__proto__": 1}, {str(i): i for i in range(3000)},
)  # fmt: skip
REGEXES = ("a+", "[ab]*", "\\p{L}", "[")
"""Harmless: any is refused. What hung were patterns that backtrack without an end."""
Content = bytes


def damage(number: int, clean: Path, folder: Path) -> str:
    """Make ``folder`` the clean bundle with the damage of this number, and say what that is."""
    rng = random.Random(number)
    shutil.copytree(clean, folder, copy_function=os.link)
    name = rng.choice(FILES)
    if rng.random() < 0.1:
        how = _misplace(rng, folder, name)
    else:
        how, content = _rewrite(rng, name, (clean / name).read_bytes())
        if rng.random() < 0.1:
            again, content = _bytes(rng, content)
            how = f"{how}, {again}"
        (folder / name).unlink()
        (folder / name).write_bytes(content)
    if name != MANIFEST and rng.random() < 0.85:
        _record_again(folder, name)
        how += ", recorded"
    if rng.random() < 0.01 and name != MANIFEST:
        how += ", and " + fill_all(rng, clean, folder)
    return f"{name}: {how}"


def fill_all(rng: random.Random, clean: Path, folder: Path) -> str:
    """Every JSON file as large as it may be, so that what each may take adds up."""
    changes = []
    for name in ("tokenizer.json", "feature.json", "calibration.json", "evaluation.json"):
        how, content = _fill(rng, name, json.loads((clean / name).read_bytes()), fits=True)
        if (folder / name).is_file() and not (folder / name).is_symlink():
            (folder / name).unlink()
            (folder / name).write_bytes(content)
            _record_again(folder, name)
            changes.append(how)
    return ", ".join(changes)


def _record_again(folder: Path, name: str) -> None:
    """Make the manifest agree with a file, as far as it is one."""
    path = folder / name
    manifest = json.loads((folder / MANIFEST).read_bytes())
    if not path.exists() or path.is_symlink():
        manifest["files"].pop(name)
    elif path.is_file() and path.stat().st_size < 1 << 28:
        manifest["files"][name] = {"sha256": sha256_of(path), "size": path.stat().st_size}
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_text(json.dumps(manifest))


def _misplace(rng: random.Random, folder: Path, name: str) -> str:
    """Something other than the file in its place, or something beside it."""
    path = folder / name
    how = rng.choice((
        "missing", "directory", "link", "link to a device", "link to itself", "fifo", "device", "unreadable", "sparse",
        "foreign", "foreign bytes", "foreign link",
    ))  # fmt: skip
    if how == "foreign":
        (folder / rng.choice(("code.py", ".hidden", "model.safetensors.index.json", "a\nb", "x" * 255))).touch()
        return how
    if how == "foreign bytes":
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe")).touch()
        return how
    if how == "foreign link":
        (folder / "pytorch_model.bin").symlink_to("/etc/passwd")
        return how
    if how == "unreadable":
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
        path.chmod(0)
        return how
    path.unlink()
    if how == "directory":
        path.mkdir()
    elif how == "link":
        path.symlink_to("/etc/hostname")
    elif how == "link to a device":
        path.symlink_to("/dev/zero")
    elif how == "link to itself":
        path.symlink_to(path)
    elif how == "fifo":
        os.mkfifo(path)
    elif how == "device":
        try:
            os.mknod(path, 0o20666, os.makedev(1, 5))
        except PermissionError:
            path.symlink_to("/dev/zero")
    elif how == "sparse":
        with path.open("wb") as file:
            file.truncate(rng.choice((1 << 20, 1 << 24, 1 << 28, 1 << 33, 1 << 40)))
    return how


def _rewrite(rng: random.Random, name: str, content: Content) -> tuple[str, Content]:
    if name.endswith(".json") and rng.random() < 0.04:
        return _fill(rng, name, json.loads(content))
    if name == "model.safetensors" and rng.random() < 0.85:
        return _weights(rng, content)
    if name == "tokenizer.json" and rng.random() < 0.6:
        return _tokenizer(rng, content)
    if name == "calibration.json" and rng.random() < 0.3:
        return _steps(rng, content)
    if name.endswith(".json") and rng.random() < 0.85:
        return _json(rng, content)
    return _bytes(rng, content)


def _bytes(rng: random.Random, content: Content) -> tuple[str, Content]:
    """Flipped bits, a cut, something added, moved or put in."""
    how = rng.choice(("flip", "truncate", "extend", "empty", "random", "splice", "spaces", "mark"))
    data = bytearray(content)
    at = rng.randrange(len(data) + 1)
    if how == "flip" and data:
        for _ in range(rng.choice((1, 1, 2, 8, 100))):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif how == "truncate":
        del data[at:]
    elif how == "extend":
        data += rng.choice((b"\0", b"\n", b"}", b"{}", rng.randbytes(100), b"\0" * (1 << 20)))
    elif how == "empty":
        data.clear()
    elif how == "random":
        data[at : at + 64] = rng.randbytes(64)
    elif how == "splice":
        start = rng.randrange(len(data) + 1)
        data[at:at] = data[start : start + rng.choice((1, 10, 1000))]
    elif how == "spaces":
        data += b" " * rng.choice((1, 1 << 20, 1 << 23))
    elif how == "mark":
        data[:0] = rng.choice((b"\xef\xbb\xbf", b"\xff\xfe", b"\x80\x04"))
    return how, bytes(data)


def _json(rng: random.Random, content: Content) -> tuple[str, Content]:
    """One to three changes of the parsed value: types, numbers, lengths, keys, fragments that are no JSON."""
    value, how = json.loads(content), []
    fragment = None
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        parents = list(_containers(value))
        if not parents:
            break
        # Deep containers are many and alike: the shallow ones get their share.
        parent = rng.choice(parents[:12] if rng.random() < 0.5 else parents)
        key = rng.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
        change = rng.choice(("value", "value", "value", "raw", "remove", "add", "swap", "grow", "number", "number"))
        how.append(f"{change} at {str(key)[:30]}")
        if change == "raw":
            name = rng.choice(list(RAW))
            parent[key], fragment = "\N{BULLET}", RAW[name]
            how.append(name)
        elif change == "remove":
            del parent[key]
        elif change == "add":
            parent.update({f"{key}x": parent[key]}) if isinstance(parent, dict) else parent.insert(key, parent[key])
        elif change == "swap":
            other = rng.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
            parent[key], parent[other] = parent[other], parent[key]
        elif change == "grow" and isinstance(parent[key], list | str):
            parent[key] = parent[key] * rng.choice((2, 100))
        elif change == "number" and isinstance(parent[key], int | float):
            factor = rng.choice((-1, 0, 1e-300, 1e10, 1e300))
            parent[key] = type(parent[key])(min(max(parent[key] * factor, -1e308), 1e308))
        else:
            parent[key] = rng.choice(VALUES)
    text = json.dumps(value)
    return ", ".join(how), (text if fragment is None else text.replace('"\\u2022"', fragment)).encode()


def _containers(value: Any) -> Any:
    waiting = [value]
    for one in waiting:
        if isinstance(one, dict | list) and one:
            yield one
            waiting += one.values() if isinstance(one, dict) else one[:100]


def _fill(rng: random.Random, name: str, value: dict[str, Any], fits: bool = False) -> tuple[str, Content]:
    """As much as fits under the file's limits, of what takes the most memory per byte; or a little more than fits."""
    most = MAX_VALUES - len(value.get("typicality", {}).get("patterns", ())) * 12 - 10_000
    size = FOLDER_MAX_BYTES[name] - 200_000
    if not fits:
        most, size = int(most * rng.choice((0.5, 1, 1.2))), int(size * rng.choice((0.5, 1, 1.2)))
    if name == "feature.json" and (fits or rng.random() < 0.7):
        count, width = most // 5, min(40, size // (most // 5) - 28)
        entries = b",".join(b'"%x":[["%s",true,true]]' % (number, b"a" * width) for number in range(count))
        return f"{count} tickets", b'{"by_ticket":{' + entries + b"}}"
    if name == "tokenizer.json" and (fits or rng.random() < 0.7):
        own = value["model"]["vocab"]
        count = 119_000 if fits else rng.choice((119_000, 160_000, size // 15))
        value["model"]["vocab"] = own | {f"{number:x}": number % len(own) for number in range(count)}
        return f"{count} words", json.dumps(value, separators=(",", ":")).encode()
    if name == "calibration.json" and (fits or rng.random() < 0.7):
        if rng.random() < 0.5:
            kinds = most // 12
            patterns = [[rng.randrange(2) for _ in range(10)] for _ in range(kinds)]
            value["typicality"] |= {"patterns": patterns, "weights": [1] * kinds}
            return f"{kinds} patterns", json.dumps(value, separators=(",", ":")).encode()
        count = most // 5
        one = {"scores": list(range(count)), "p0": [0.25] * (2 * count + 1), "p1": [0.5] * (2 * count + 1)}
        value["venn_abers"] = one
        return f"{count} scores", json.dumps(value, separators=(",", ":")).encode()
    unit = rng.choice((b"[],", b"{},", b"0.5,", b'"a",', b'[["a",true,true]],', b"[0,0,0,0,0,0,0,0,0,0],"))
    places: dict[str, tuple[str, ...]] = {
        "calibration.json": ("rows", "candidates", "map"), "feature.json": ("by_ticket",),
        "tokenizer.json": ("model",),
    }  # fmt: skip
    count = min(size // len(unit), most // (unit.count(b",") + unit.count(b"[") + unit.count(b"{")))
    key = rng.choice(places.get(name) or tuple(value) or ("more",))
    value[key] = "\N{BULLET}"
    dense = b"[" + unit * max(count, 0) + b"0]"
    return f"{key} of {count} × {unit!r}", json.dumps(value).encode().replace(b'"\\u2022"', dense)


def _steps(rng: random.Random, content: Content) -> tuple[str, Content]:
    """A calibration map of extreme but well-formed steps; a bag with extreme weights."""
    value = json.loads(content)
    big = [0.0, 5e-324, 1e-300, 1e-16, 0.5, 1 - 2**-53, 1.0, 3.0, 1e16, 1e300, 1.7e308]

    def number() -> float:
        return rng.choice(big) * rng.choice((1, 1, 1, -1))

    makers: dict[str, Callable[[], dict[str, Any]]] = {
        "temperature": lambda: {"temperature": number()},
        "platt": lambda: {"slope": number(), "offset": number()},
        "beta": lambda: {"a": number(), "b": number(), "c": number()},
        "focal_inverse": lambda: {
            "gamma": number(), "smoothing": number(), "alpha_negative": number(), "alpha_positive": number()
        },
        "isotonic": lambda: {"logits": sorted({number() for _ in range(4)}), "probabilities": [0.5] * 4},
        "loss_inverse": lambda: {k: sorted({number() for _ in range(3)}) for k in ("logits", "values")},
        "prior_shift": lambda: {"training": number(), "target": number()},
        "identity": dict,
    }  # fmt: skip
    if rng.random() < 0.2:
        value["typicality"]["weights"] = [
            rng.choice((1, 2**53, 2**63, 10**300)) for _ in value["typicality"]["weights"]
        ]
        return "weights", json.dumps(value).encode()
    steps = [(kind := rng.choice(list(makers)), {"step": kind, **makers[kind]()}) for _ in range(rng.choice((1, 2, 3)))]
    value["map"]["steps"] = [step for _, step in steps] * rng.choice((1, 1, 1, 2000))
    return "steps " + " ".join(kind for kind, _ in steps), json.dumps(value).encode()


def _tokenizer(rng: random.Random, content: Content) -> tuple[str, Content]:
    """Well-formed tokenizers with hostile parts."""
    value = json.loads(content)
    model, template = value["model"], value["post_processor"]
    regex = {"Regex": rng.choice(REGEXES)}
    how = rng.choice((
        "split", "replace", "decoder", "sequence", "template ids", "template long", "template empty", "no template",
        "unknown", "vocabulary", "ids", "added", "prefix", "kind", "chars", "erase",
    ))  # fmt: skip
    if how == "split":
        value["pre_tokenizer"] = {"type": "Split", "pattern": regex, "behavior": "Isolated", "invert": False}
    elif how == "replace":
        value["normalizer"] = {"type": "Replace", "pattern": regex, "content": "a" * rng.choice((1, 100_000))}
    elif how == "decoder":
        value["decoder"] = {"type": "Replace", "pattern": regex, "content": ""}
    elif how == "sequence":
        nested = {"type": "Lowercase"}
        for _ in range(rng.choice((1, 30))):
            nested = {"type": "Sequence", "normalizers": [nested, nested] if rng.random() < 0.01 else [nested]}
        try:
            value["normalizer"] = json.loads(json.dumps(nested))
        except RecursionError:
            value["normalizer"] = None
    elif how == "template ids":
        template["special_tokens"]["[CLS]"]["ids"] = [rng.choice((30522, 300_000, -1))]
    elif how == "template long":
        template["single"] = template["single"][:1] * rng.choice((15, 16, 1000)) + template["single"]
    elif how == "template empty":
        template["single"] = []
    elif how == "no template":
        value["post_processor"] = None
    elif how == "unknown":
        model["unk_token"] = "no such word"
        model["vocab"] = {k: v for k, v in model["vocab"].items() if rng.random() < 0.3}
    elif how == "vocabulary":
        model["vocab"] = {f"{i:x}": i for i in range(rng.choice((1, 10, 1_000_000)))}
    elif how == "ids":
        for token in rng.sample(list(model["vocab"]), 50):
            model["vocab"][token] = rng.choice((0, 30522, 300_000, -1))
    elif how == "added":
        added = {**value["added_tokens"][0], "content": rng.choice(("", " ", "a", "third", "x" * 100_000))}
        value["added_tokens"] += [
            {**added, "id": rng.choice((0, 5, 40_000, 300_000)), "content": added["content"] + str(i) * (i > 0)}
            for i in range(rng.choice((1, 3, 20_000 if len(added["content"]) < 99 else 3)))
        ]
    elif how == "prefix":
        model["continuing_subword_prefix"] = rng.choice(("", "#" * 1_000_000))
    elif how == "kind":
        model["type"] = rng.choice(("BPE", "Unigram", "WordLevel", "Nonsense"))
    elif how == "chars":
        model["max_input_chars_per_word"] = rng.choice((0, 1, 2**63, 2**64 - 1))
    elif how == "erase":
        value["normalizer"] = {"type": "Replace", "pattern": {"Regex": ".*"}, "content": ""}
    return how, json.dumps(value).encode()


def _weights(rng: random.Random, content: Content) -> tuple[str, Content]:
    """Crafted safetensors: headers that are wrong about lengths, places, shapes and types, and extreme numbers.

    Harmless ones: sizes that overflow, lie beyond the file or below zero have ended MLX's process, and so has nesting
    without an end. The same checks refuse both.
    """
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), bytearray(content[8 + length :])
    name = rng.choice([key for key in header if key != "__metadata__"])
    entry = header[name]
    claimed: int | None = None
    text: bytes | None = None
    how = rng.choice((
        "length", "offsets", "shape", "dtype", "missing", "extra", "repeated", "not utf-8", "metadata", "entry",
        "value", "tensor", "gap", "swap", "unfinished", "large",
    ))  # fmt: skip
    if how == "length":
        claimed = rng.choice((0, 1, 2, 8, length - 1, length + 1, len(content)))
    elif how == "offsets":
        entry["data_offsets"] = rng.choice((
            [0, 0], [0, 16], [16, 0], [1, 17], [0.0, 16.0], ["0", "16"], [0], [True, 16], None,
            entry["data_offsets"][::-1],
        ))  # fmt: skip
    elif how == "shape":
        entry["shape"] = rng.choice((
            [0], [], [4.0], [[4]], None, ["4"], entry["shape"][::-1], [*entry["shape"], 1], [1] * 5, [True] * 2, [3, 5],
        ))  # fmt: skip
    elif how == "dtype":
        entry["dtype"] = rng.choice(("F16", "BF16", "F64", "I32", "BOOL", "F8_E4M3", "", "x" * 1000, None, 3, ["F32"]))
    elif how == "missing":
        del header[name]
    elif how == "extra":
        header[rng.choice(("extra", "", "\0", "a" * 100_000))] = rng.choice((entry, None, {}))
    elif how == "repeated":
        text = (json.dumps(header)[:-1] + "," + json.dumps({name: entry})[1:]).encode()
    elif how == "not utf-8":
        text = json.dumps(header).encode().replace(b"classifier", b"\xff\xfe\xfa")
    elif how == "metadata":
        header["__metadata__"] = rng.choice(
            ({"format": "mlx"}, {"a": 1}, None, [], {"format": "pt", "x": "y" * 100_000})
        )
    elif how == "entry":
        header[name] = rng.choice((None, 3, [], {}, "F32", {**entry, "more": 1}, {"dtype": "F32"}))
    elif how == "value":
        for _ in range(rng.choice((1, 5, 1000))):
            at = rng.randrange(len(data) // 4) * 4
            data[at : at + 4] = struct.pack("<f", rng.choice((float("nan"), float("inf"), 3e38, -3e38, 1e-45, 1e30)))
    elif how == "tensor":
        begin, end = entry["data_offsets"]
        one = rng.choice((0.0, 3e38, -3e38, 1e20, 1e-40, float("nan")))
        data[begin:end] = struct.pack("<f", one) * ((end - begin) // 4)
    elif how == "gap":
        for other in header.values():
            if "data_offsets" in other and other["data_offsets"][0] >= entry["data_offsets"][1]:
                other["data_offsets"] = [place + 4 for place in other["data_offsets"]]
        data[entry["data_offsets"][1] : entry["data_offsets"][1]] = b"\0" * 4
    elif how == "swap":
        other = header[rng.choice([key for key in header if key != "__metadata__"])]
        entry["data_offsets"], other["data_offsets"] = other["data_offsets"], entry["data_offsets"]
    elif how == "unfinished":
        text = b'{"a":' * rng.choice((1, 3)) + b"1"
    elif how == "large":
        text = b"{" + b",".join(b'"%x":{}' % i for i in range(rng.choice((1000, 100_000, 90_000)))) + b"}"
    text = json.dumps(header).encode() if text is None else text
    return f"{how} of {name}", struct.pack("<Q", len(text) if claimed is None else claimed) + text + bytes(data)
