"""`ddtool env`: versions and hardware, for a bug report."""

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.info import fact_table
from ddtool.cli.output import Output


@handled
def command(json_: o.Json = False, quiet: o.Quiet = False) -> None:
    """Show versions, device and caches."""
    import os
    import platform
    from importlib import metadata

    import torch

    import ddtool
    from ddtool.runtime.cache import cache_root
    from ddtool.runtime.engine import Engine
    from ddtool.text import without_secrets

    facts = {"ddtool": ddtool.__version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in ("torch", "datasets", "huggingface_hub", "safetensors", "typer", "rich"):
        facts[name] = metadata.version(name)
    facts["torch"] = str(torch.__version__)  # with its build, which the package's metadata may leave out: +cpu, +cu130
    facts["device"] = Engine.choose().describe()
    facts["cache"] = str(cache_root())
    facts["HF_TOKEN"] = "set" if os.environ.get("HF_TOKEN") else "not set"
    for name in ("HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        facts[name] = without_secrets(os.environ.get(name, "not set"))
    with Output(json_, quiet) as output:
        output.result(facts, facts["ddtool"], [fact_table(facts)])
        output.next_step("ddtool adapt sample --ipc 10")
