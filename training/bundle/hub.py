"""Bundles in a repository of the Hugging Face hub: pushed as they are, and verified before anybody uses them.

The hub's client takes its address and token from its own variables (HF_ENDPOINT, HF_TOKEN) or from a login.
"""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Self

from models.bundle.manifest import FOLDER_MAX_BYTES, BundleError
from models.bundle.read import read_bundle

SCHEME = "hf://"
REFERENCE = re.compile(r"hf://(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(?:@(?P<revision>\w[\w./-]*))?", re.ASCII)


class HubError(BundleError):
    """A bundle that cannot be pushed or pulled; the message names what, where, and why."""


class HubURI(NamedTuple):
    """A model repository, and its branch, tag or commit, if it is not the newest state."""

    repo: str
    revision: str | None

    @classmethod
    def parse(cls, reference: str) -> Self:
        """Raises HubError for what is no such URL."""
        match = REFERENCE.fullmatch(reference)
        if match is None:
            raise HubError(f"{reference} is not hf://OWNER/NAME or hf://OWNER/NAME@REVISION")
        return cls(match["repo"], match["revision"])


def push(folder: Path, reference: str) -> str:
    """Verify a bundle, make it the newest state of its repository, and return the commit.

    A repository that is not there is made, for nobody else to see. What an older bundle left in it goes. Raises
    BundleError.
    """
    from huggingface_hub import HfApi

    uri = HubURI.parse(reference)
    if uri.revision is not None:
        raise HubError(f"{reference}: a bundle is pushed to {SCHEME}{uri.repo}; the commit follows from that")
    bundle = read_bundle(folder)
    with _translate_errors(reference):
        api = HfApi()
        api.create_repo(uri.repo, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=uri.repo, folder_path=folder, delete_patterns="*",
            commit_message=f"{bundle.schema.name}, version {bundle.version}",
        )  # fmt: skip
    return str(commit.oid)


def pull(reference: str, into: Path, keys: Path | None = None) -> Path:
    """Fetch a bundle into ``into``/VERSION, verified as `read_bundle` does, and return that folder.

    It appears there whole or not at all. Nothing is fetched of a repository with a file that no bundle has, or one
    larger than it may be. Raises BundleError.
    """
    from huggingface_hub import HfApi, snapshot_download

    uri = HubURI.parse(reference)
    try:
        into.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=into, prefix=".pull-") as temporary:
            fetched = Path(temporary) / "bundle"
            with _translate_errors(reference):
                state = HfApi().model_info(uri.repo, revision=uri.revision, files_metadata=True)
                files = {each.rfilename: each.size for each in state.siblings or []}
                # The hub's own, which it adds to every repository.
                files.pop(".gitattributes", None)
                _check_sizes(reference, files)
                snapshot_download(uri.repo, revision=state.sha, local_dir=fetched, allow_patterns=list(files))
            shutil.rmtree(fetched / ".cache", ignore_errors=True)
            folder = into / read_bundle(fetched, keys).version
            if not folder.exists():
                fetched.rename(folder)
        read_bundle(folder, keys)
    except OSError as error:
        raise HubError(f"{into} cannot hold a bundle: {error.strerror}") from error
    return folder


def _check_sizes(reference: str, files: dict[str, int | None]) -> None:
    for name, size in files.items():
        if not 0 <= (size or 0) <= FOLDER_MAX_BYTES.get(name, -1):
            raise HubError(f"{reference} has {name[:80]} of {size} bytes, which no bundle has")


@contextmanager
def _translate_errors(reference: str) -> Iterator[None]:
    """What the hub's client raises as a HubError in one sentence."""
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalTokenNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except RevisionNotFoundError as error:
        raise HubError(f"{reference}: there is no such revision") from error
    except RepositoryNotFoundError as error:
        raise HubError(f"{reference}: there is no such repository, or not for this token (HF_TOKEN)") from error
    except LocalTokenNotFoundError as error:
        raise HubError(f"{reference}: there is no token: set HF_TOKEN, or log in with `hf auth login`") from error
    except HFValidationError as error:
        raise HubError(f"{reference}: {str(error)[:200]}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        reason = "access is denied to this token (HF_TOKEN)" if status in (401, 403) else f"the hub answered {status}"
        raise HubError(f"{reference}: {reason}") from error
    except Exception as error:
        if not type(error).__module__.startswith(("httpx", "httpcore", "hf_xet")):
            raise
        raise HubError(
            f"{reference}: the hub cannot be reached ({type(error).__name__}); HF_ENDPOINT names it"
        ) from error
