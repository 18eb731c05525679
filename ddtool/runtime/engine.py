"""Hardware: device, precision, memory format, compilation, seeds. Nobody else asks what machine this is."""

import contextlib
import ctypes
import functools
import gc
import hashlib
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ddtool.errors import UsageError, did_you_mean
from ddtool.runtime.capture import CapturedSteps, CudaGraphs
from ddtool.runtime.compiling import Compilation, check_compiler
from ddtool.runtime.rows import Divide, Rowwise
from ddtool.text import count

M = TypeVar("M", bound=nn.Module)
DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "bf16", "fp32")
PASS_SHARE, BYTES_A_VALUE = 4, 16
"""A pass may take a quarter of the memory; a value is there four times, in float32: before and after a layer, in two layouts."""
KEPT_BYTES = 2**29
"""Freed memory that a process on a CPU keeps for its next step, at most."""
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD = -1, -3, 32 * 2**20
"""Numbers of glibc's malloc.h."""
PART_BYTES = LARGEST_MMAP_THRESHOLD - 2**20
"""The widest tensor of a part on a CPU. Larger ones the C library does not keep for the next step: they are fetched from the system
page by page each time, of a training step a tenth to a third (docs/log.md)."""


@dataclass(frozen=True)
class Engine:
    """Where and how tensors are computed. Build it with `Engine.choose`."""

    device: torch.device
    bf16: bool
    compile_networks: bool = False
    varying_sizes: bool = False
    """Batches differ in size from call to call: what is compiled takes any, instead of a compilation for each."""
    compilation: Compilation | None = None
    """Watches over compilations."""
    memory: int = 8 * 2**30
    """Bytes to work in: what can be done in parts is done in parts that fit."""
    graphs: bool = False
    """Steps of adaptation and refinement are captured in CUDA graphs. This has never run on a GPU."""
    processes: int = 1
    """How many processes compute the rows of `rowwise`."""
    divide: Divide | None = None
    """Has them computed by these processes; None where there is one."""

    @classmethod
    def choose(
        cls,
        device: str = "auto",
        precision: str = "auto",
        compile_networks: bool = False,
        memory: int | None = None,
        graphs: bool = False,
    ) -> "Engine":
        """The engine for a request; 'auto' takes cuda before cpu, and bf16 where the hardware computes in it.

        memory: bytes to work in (default: half of what the machine or the GPU has in all);  graphs: capture steps in CUDA graphs
        (`runtime.capture`; it has never run on a GPU).

        Raises UsageError for an unknown or absent device, an unknown precision, networks to compile without a compiler, and steps
        to capture without a CUDA device or beside networks to compile.
        """
        chosen = torch.device(_default_device() if device == "auto" else _known_device(device))
        if precision not in PRECISIONS:
            raise UsageError(f"Unknown precision '{precision}'.", did_you_mean(precision, PRECISIONS))
        bf16 = _bf16_is_fast(chosen) if precision == "auto" else precision == "bf16"
        if graphs and chosen.type != "cuda":
            hint = "Leave --graphs out, or run where there is a GPU, with --device cuda."
            raise UsageError(f"--graphs captures steps in CUDA graphs, and the device is {chosen.type}.", hint)
        if graphs and compile_networks:
            hint = "Leave one of them out."
            raise UsageError("--graphs and --compile exclude each other: compiled networks are not captured.", hint)
        if compile_networks:
            check_compiler(chosen.type)
        if chosen.type == "cpu":
            keep_freed_memory()
        return cls(chosen, bf16, compile_networks, memory=memory or total_memory(chosen) // 2, graphs=graphs)

    @classmethod
    def of(cls, engine: "Engine | torch.device | str | None") -> "Engine":
        """An engine as it is; for a device, or its name, what `choose` gives; None: the device is chosen, too."""
        return engine if isinstance(engine, Engine) else cls.choose("auto" if engine is None else str(engine))

    def describe(self) -> str:
        """One line: device, its name, precision, whether steps are captured, and how many processes there are."""
        how = ("bf16 autocast" if self.bf16 else "float32") + ", captured steps" * self.graphs
        together = f", {self.processes} processes" if self.processes > 1 else ""
        return f"{self.device} ({hardware(self.device)}), {how}{together}"

    def at_once(self, values: int, most: int) -> int:
        """How many images, up to `most`, a pass without gradients may take of which each has so many values at its widest."""
        return max(1, min(most, self.memory // PASS_SHARE // (BYTES_A_VALUE * max(1, values))))

    def part(self, values: int, images: int) -> int:
        """In how many images at once `images` of them are best computed, where that changes nothing but the time: equal parts.

        A part fits the memory (`at_once`), and on a CPU its widest tensor has `PART_BYTES` at most.
        """
        most = self.at_once(values, images)
        if self.device.type == "cpu":
            most = max(1, min(most, PART_BYTES // ((2 if self.bf16 else 4) * max(1, values))))
        return most if images <= most else math.ceil(images / math.ceil(images / most))

    def autocast(self) -> contextlib.AbstractContextManager:
        """bf16 for convolutions and matrix products inside, when the precision asks for it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def place(self, module: M) -> M:
        """The module on the device in channels-last layout."""
        return module.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def wrap(self, function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """`function` under autocast, compiled when the engine was asked to compile, its result in float32."""
        dynamic = None if self.varying_sizes else False
        compiled = torch.compile(function, dynamic=dynamic) if self.compile_networks else function
        if self.compile_networks and self.compilation:
            compiled = watched(compiled, self.compilation)

        def run(x: Tensor) -> Tensor:
            with self.autocast():
                return compiled(x).float()

        return run

    def rowwise(self, function: Rowwise, X: Tensor, *more: Tensor) -> Tensor:
        """The rows that a function makes of these inputs: by this process, or divided over all that share a run."""
        return function.rows(X, *more) if self.divide is None else self.divide(function, X, *more)

    def adam(self, learned: Iterable, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999)) -> torch.optim.Adam:
        """torch's Adam over tensors or groups of them; where steps are captured the fused one, its learning rates tensors."""
        if not self.graphs:
            return first_of_all(lambda: torch.optim.Adam(learned, lr=lr, betas=betas))
        optimiser = first_of_all(lambda: torch.optim.Adam(learned, lr=lr, betas=betas, fused=True, capturable=True))
        for group in optimiser.param_groups:
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float32, device=self.device)
        return optimiser

    def captured(self, optimiser: torch.optim.Optimizer, rng: torch.Generator) -> CapturedSteps | None:
        """What captures the steps of a loop that draws from `rng` alone; None where they are made eagerly."""
        return CapturedSteps(optimiser, CudaGraphs(self.device, rng)) if self.graphs else None

    def rng(self, seed: int, *purpose: str | int) -> torch.Generator:
        """A generator on the device for one purpose: the same seed and purpose give the same stream, in any order of use."""
        return seeded_generator(self.device, seed, *purpose)

    def synchronise(self) -> None:
        """Wait until the device has done all that it was given, so that a clock tells the truth."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def reset_peak_memory(self) -> None:
        """Count the peak from here on; on a CPU, whose count cannot be reset, nothing happens."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_memory_mib(self) -> float | None:
        """The device's peak allocation so far, or the process's peak resident size on the CPU, in MiB.

        None on a CPU under Windows, which has no such count.
        """
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        if sys.platform == "win32":
            return None
        import resource  # of POSIX systems only

        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def first_of_all(make: Callable[[], torch.optim.Adam]) -> torch.optim.Adam:
    """An optimiser that may be the first of the process. Then torch imports its compiler, and leaves a cycle of frames. It holds
    all that its callers held, such as the images of a whole set, until Python collects its garbage; so that is done here."""
    imports = "torch._dynamo" not in sys.modules
    optimiser = make()
    if imports:
        gc.collect()
    return optimiser


def watched(compiled: Callable[[Tensor], Tensor], compilation: Compilation) -> Callable[[Tensor], Tensor]:
    """`compiled`, which is compiled by its first call with images of a size, and its gradient by the backward pass after that."""
    seen: set[tuple] = set()

    def call(x: Tensor) -> Tensor:
        compilation.finish()
        kind = (x.shape, x.requires_grad, torch.is_grad_enabled())
        if kind in seen:
            return compiled(x)
        seen.add(kind)
        compilation.begin()
        out = compiled(x)
        if out.grad_fn is None:
            compilation.finish()
        else:
            compiled_node(out.grad_fn).register_hook(lambda *gradients: compilation.over())
        return out

    return call


def compiled_node(node: Any) -> Any:
    """The node of a graph, at or below `node`, whose backward pass is compiled; `node` itself where none says so."""
    found = node
    while found is not None and "Compiled" not in found.name():
        found = found.next_functions[0][0] if found.next_functions else None
    return found or node


def gpu_count() -> int:
    """How many GPUs this process may use."""
    return torch.cuda.device_count()


def spread(device: str, processes: int) -> list[str]:
    """A device for each of so many processes beside each other: every GPU in turn, where `device` leaves the choice."""
    gpus = gpu_count() if device in ("auto", "cuda") else 0
    return [f"cuda:{n % gpus}" if gpus > 1 else device for n in range(processes)]


def threads_each(processes: int) -> int:
    """CPU threads for each of so many processes beside each other."""
    return max(1, torch.get_num_threads() // processes)


def seeded_generator(device: torch.device | str, seed: int, *purpose: str | int) -> torch.Generator:
    """A torch.Generator seeded by a hash of `seed` and `purpose`."""
    digest = hashlib.sha256("/".join(map(str, (seed, *purpose))).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:7], "big"))


@functools.cache
def keep_freed_memory() -> None:
    """Tell the C library to keep what a step frees for the next step. glibc gives it back to the system, which has to hand it out
    anew, page by page: a third of a training step. Other C libraries have no such setting, and nothing happens."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            library.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
            library.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)


def total_memory(device: torch.device) -> int:
    """Bytes that the GPU or the machine has (or, under Linux, that this process may have); 8 GiB where nobody says."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    known = []
    if sys.platform != "win32":
        with contextlib.suppress(OSError, ValueError):
            known.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError), open(limit, encoding="ascii") as file:  # "max": there is none
            known.append(int(file.read()))
    return min((bytes_ for bytes_ in known if bytes_ > 0), default=8 * 2**30)


def hardware(device: torch.device) -> str:
    """The name of the device and, for a CPU, its thread count."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_cpu_name()}, {count(torch.get_num_threads(), 'thread')}"


@contextlib.contextmanager
def torch_as_usual() -> Iterator[None]:
    """torch's modes as a process begins with: gradients, float32, new tensors on the CPU, no autocast. Then the caller's are back.

    Under a caller's autocast weights that were cast to bf16 would be kept from step to step, and networks learn next to nothing.
    """
    kind = torch.get_default_dtype()
    with contextlib.ExitStack() as modes:
        modes.callback(torch.set_default_dtype, kind)
        torch.set_default_dtype(torch.float32)
        modes.enter_context(torch.inference_mode(False))
        modes.enter_context(torch.enable_grad())
        if torch.get_default_device().type != "cpu":  # such a mode slows every call of torch
            modes.enter_context(torch.device("cpu"))
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                modes.enter_context(torch.autocast(device, enabled=False, cache_enabled=False))
        yield


@contextlib.contextmanager
def frozen_random_state() -> Iterator[None]:
    """Leave torch's global random state as it was: module constructors draw from it, our results never do."""
    with torch.random.fork_rng(devices=[]):
        yield


def finite(values: Tensor) -> bool:
    """Whether every entry is a finite number (asks the host)."""
    return bool(torch.isfinite(values).all())


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _known_device(name: str) -> str:
    kind = name.split(":")[0]
    if kind == "mps":
        raise UsageError("Apple GPUs do not compute in float64, which solving for labels takes.", "Use --device cpu.")
    if kind not in DEVICES:
        hint = "A GPU is called cuda: --device cuda." if kind.lower() == "gpu" else did_you_mean(kind, DEVICES)
        raise UsageError(f"Unknown device '{name}'.", hint)
    present = {"cpu": True, "cuda": torch.cuda.is_available()}
    if not present[kind]:
        raise UsageError(f"Device '{name}' is not available on this machine.", "Use --device auto.")
    index = name.partition(":")[2]
    if index and (kind != "cuda" or not index.isdecimal() or int(index) >= torch.cuda.device_count()):
        raise UsageError(f"Device '{name}' is not available on this machine.", "Use --device auto.")
    return name


def _bf16_is_fast(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    flags = _cpu_flags()
    return ("avx512_bf16" in flags or "amx_bf16" in flags) and _bf16_is_no_slower()


SLOWER = 1.5
"""So many times the seconds of float32 are taken for a sign that bf16 is emulated: where it is, it takes eight times as long."""


@functools.cache
def _bf16_is_no_slower(clock: Callable[[], float] = time.process_time) -> bool:
    """Whether a convolution in bf16 takes about as much of the processor's time as in float32 at most. What a CPU says that it has
    the kernels may not use (ONEDNN_MAX_CPU_ISA=AVX2 has that): then they emulate it, and labels take minutes."""
    least = {kind: min(_conv_seconds(kind, clock) for _ in range(4)) for kind in (torch.float32, torch.bfloat16)}
    return least[torch.bfloat16] <= SLOWER * least[torch.float32]


@torch.no_grad()
def _conv_seconds(kind: torch.dtype, clock: Callable[[], float]) -> float:
    """Seconds of a convolution such as the networks have (a few milliseconds)."""
    images = torch.ones(64, 32, 16, 16, dtype=kind).contiguous(memory_format=torch.channels_last)
    weights = torch.ones(64, 32, 3, 3, dtype=kind).contiguous(memory_format=torch.channels_last)
    started = clock()
    nn.functional.conv2d(images, weights, padding=1)
    return clock() - started


def _cpu_info(field: str) -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            key, _, value = line.partition(":")
            if key.strip() == field:
                return value.strip()
    return ""


def _cpu_flags() -> set[str]:
    return set(_cpu_info("flags").split())


def _cpu_name() -> str:
    return _cpu_info("model name") or platform.processor() or platform.machine() or f"{os.cpu_count()} cores"
