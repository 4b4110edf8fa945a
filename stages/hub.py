"""Fetching models from the Hugging Face hub. The one place that reaches for a network, and only when asked to."""

import glob
import shutil
from pathlib import Path
from typing import Any

from stages.base import Role
from stages.errors import ModelError
from stages.model_files import check_kind, check_names, files_read
from stages.registry import hub_directory, is_hub_id, resolve


def pull(role: Role, source: str, directory: Path, *, endpoint: str | None = None) -> Path:
    """Fetch what the role reads of a hub model into `directory`/org--name, and return that path.

    A setting that names a directory or a package has nothing to fetch: it is checked where it is. A model that was
    pulled before is left as it is; delete its directory to fetch it anew. The final name appears only when everything
    is there; what was fetched before a failure is kept aside, and the next pull goes on from it.

    endpoint: another hub than huggingface.co; None: the environment's HF_ENDPOINT, or that. A token is found where the
    hub's own tools keep it (HF_TOKEN). Raises ModelError: model-pull-failed (offline, unknown, private or gated),
    model-wrong-kind before anything is fetched.
    """
    target = hub_directory(source, directory)
    if not is_hub_id(source) or target.is_dir():
        return resolve(role, source, directory)
    partial = directory / f".{target.name}.part"
    partial.mkdir(parents=True, exist_ok=True)
    _fetch(role, source, partial, endpoint)
    check_kind(role, source, partial)
    shutil.rmtree(partial / ".cache", ignore_errors=True)  # the library's notes for going on with a broken download
    partial.rename(target)
    return target


def _fetch(role: Role, source: str, partial: Path, endpoint: str | None) -> None:
    """Every network error, whatever the library calls it, becomes one ModelError."""
    from huggingface_hub import HfApi, errors, snapshot_download

    try:
        listing = HfApi(endpoint=endpoint).model_info(source)
        names = _names_to_fetch(role, source, listing)
        snapshot_download(
            source,
            revision=listing.sha,
            local_dir=partial,
            allow_patterns=[glob.escape(name) for name in names],
            endpoint=endpoint,
        )
    except errors.GatedRepoError as error:
        raise _failed(role, source, "the repository is gated: accept its terms on the hub, and set HF_TOKEN") from error
    except errors.RepositoryNotFoundError as error:
        raise _failed(role, source, "no such repository, or a private one: check the name, or set HF_TOKEN") from error
    except (OSError, errors.HTTPError, errors.XetDownloadError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        raise _failed(role, source, f"the hub cannot be reached, or broke off: {why}") from error


def _names_to_fetch(role: Role, source: str, listing: Any) -> list[str]:
    names = files_read(role, (sibling.rfilename for sibling in listing.siblings))
    check_names(role, source, names)
    return names


def _failed(role: Role, source: str, why: str) -> ModelError:
    return ModelError(
        "model-pull-failed", f'models.{role} = "{source}": {why}; or set models.{role} to a local directory'
    )
