"""The Hugging Face Hub: where a generator's files are found. Everything that comes from there is untrusted."""

import re
from importlib import resources
from pathlib import Path

from ddtool.errors import GeneratorError, did_you_mean
from ddtool.generator import CONFIG_FILE, WEIGHTS_FILE

REPO_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
BUNDLED = "meta-generator-32"


def bundled_folder() -> Path:
    """The meta generator that ships with ddtool."""
    return Path(str(resources.files("ddtool") / "assets" / BUNDLED))


def generator_folder(name: str) -> Path:
    """The folder of a generator by name: 'bundled', a local folder (or a run), or a Hub repo[@revision].

    Raises GeneratorError when there is none, or the Hub cannot be reached.
    """
    if name == "bundled":
        return bundled_folder()
    path = Path(name).expanduser()
    if path.is_dir():
        return path / "generator" if (path / "generator" / CONFIG_FILE).exists() else path
    if path.is_file():
        raise GeneratorError(f"'{name}' is a file.", f"Name the folder: {path.parent}")
    repo, _, revision = name.partition("@")
    if not REPO_ID.fullmatch(repo) or ".." in repo:
        near = "" if "/" in name else did_you_mean(name, ("bundled", "scratch")) + " "
        hint = f"{near}A generator is a folder that exists, or a Hub repo: namespace/name[@revision]."
        raise GeneratorError(f"No generator called '{name}'.", hint)
    return download(repo, revision or None)


def download(repo: str, revision: str | None) -> Path:
    """Fetch (or find in the local cache) the two files of a generator repo; returns their folder."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    # an unreachable Hub raises httpx's errors, httpx2's from huggingface_hub 2 on
    transport = [base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"]
    unavailable: tuple[type[Exception], ...] = (OSError, ValueError, RuntimeError, *transport)
    try:
        commit = Path(hf_hub_download(repo, CONFIG_FILE, revision=revision)).parent
        hf_hub_download(repo, WEIGHTS_FILE, revision=commit.name)
    except unavailable as error:
        where = f"{repo}@{revision}" if revision else repo
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise GeneratorError(
            f"There is no folder '{repo}' here, and the Hub gives no generator {where}: {type(error).__name__}: {reason}",
            "Check the name and the connection (HF_TOKEN for private repos), or use --generator bundled.",
        ) from error
    return commit
