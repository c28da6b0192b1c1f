"""What atomic files replace, and what they leave as it is."""

import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from models.files import AtomicFile, OverwriteError, is_stream, refuse_overwriting, rejected_path, write_atomic
from tests.conftest import ROOT


def read_in_thread(path: Path) -> Callable[[], bytes]:
    """What comes out of a pipe, once the other side has closed it."""
    found: list[bytes] = []
    thread = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
    thread.start()

    def result() -> bytes:
        thread.join(30)
        return found[0]

    return result


def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a.txt", tmp_path / "link"
    link.symlink_to("real/a.txt")
    for text in ("first", "second"):
        write_atomic(link, text)
        assert link.is_symlink()
        assert not target.is_symlink()
        assert target.read_text() == text
    with AtomicFile(link) as file:
        file.discard()
    assert link.is_symlink()
    assert not target.exists()
    assert sorted(one.name for one in tmp_path.rglob("*")) == ["link", "real"]


@pytest.mark.parametrize("linked", [False, True])
def test_a_pipe_is_written_to_and_stays(tmp_path: Path, linked: bool) -> None:
    pipe = path = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    if linked:
        path = tmp_path / "link"
        path.symlink_to(pipe)
    received = read_in_thread(pipe)
    with AtomicFile(path) as output:
        output.file.write("a,b\n")
        output.commit()
        output.discard()
    assert received() == b"a,b\n"
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert {one.name for one in tmp_path.iterdir()} == {pipe.name, path.name}


def test_so_is_a_device(tmp_path: Path) -> None:
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        device.write_bytes(b"")
    except PermissionError:
        pytest.skip("only root may make a device here")
    write_atomic(device, "text")
    assert stat.S_ISCHR(device.stat().st_mode)
    assert [one.name for one in tmp_path.iterdir()] == ["null"]


def test_folders_sockets_and_circles_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "circle").symlink_to("circle")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path, reason in (
            (tmp_path, "is a folder"),
            (tmp_path / "socket", "is a socket"),
            (tmp_path / "circle", "symbolic links"),
        ):
            with pytest.raises(OSError, match=reason) as raised:
                write_atomic(path, "text")
            assert raised.value.filename == str(path)


def test_what_a_shell_opened_is_continued(tmp_path: Path) -> None:
    """A file that was renamed over it would not be the one that the shell and its other commands write to."""
    out, stdout = tmp_path / "out.txt", tmp_path / "stdout"
    stdout.symlink_to("/dev/fd/1")  # As /dev/stdout is; that one must survive a test that fails.
    code = f"from pathlib import Path; from models.files import write_atomic; write_atomic(Path('{stdout}'), 'two ')"
    script = f'(echo -n "one "; {sys.executable} -c "{code}"; echo -n three) > {out}'
    subprocess.run(["sh", "-c", script], check=True, cwd=ROOT, timeout=60)
    assert out.read_text() == "one two three"
    assert stdout.is_symlink()
    piped = subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, timeout=60, stdout=subprocess.PIPE)
    assert piped.stdout == b"two "
    assert {one.name for one in tmp_path.iterdir()} == {"out.txt", "stdout"}


def test_refused_rows_of_a_stream_are_not_beside_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    assert is_stream(tmp_path / "pipe.csv")
    assert rejected_path(tmp_path / "pipe.csv") == Path("pipe.rejected.csv")
    assert rejected_path(tmp_path / "new.csv") == tmp_path / "new.rejected.csv"


def test_no_input_is_an_output(tmp_path: Path) -> None:
    data, folder = tmp_path / "in.csv", tmp_path / "folder"
    folder.mkdir()
    data.write_text("a")
    (folder / "file").write_text("b")
    (tmp_path / "soft.csv").symlink_to(data)
    (tmp_path / "hard.csv").hardlink_to(data)
    for name in ("in.csv", "soft.csv", "hard.csv", "folder", "folder/file", "folder/new/one", "../" + tmp_path.name):
        with pytest.raises(OverwriteError, match=r"would overwrite .*, which is read"):
            refuse_overwriting((data, folder, None), (None, tmp_path / name))
    os.mkfifo(tmp_path / "pipe")
    refuse_overwriting((data, folder, tmp_path / "pipe"), (tmp_path / "new.csv", tmp_path / "pipe", tmp_path / "in.cs"))
