"""What a checkpoint says about itself: the header of a `.safetensors` file, its fingerprint, and where worlds lie.

Reads without torch and never touches the weights; `nn/` loads those. The format is that of safetensors: eight bytes
of length, a JSON table of tensors, the data. All meaning is under the one metadata key `genie_play`, as sorted JSON.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from genie_play import paths
from genie_play.config import PathConfig, WorldConfig, from_dict, to_dict
from genie_play.types import LABEL_NAMES, N_ACTIONS, CheckpointError, GenieError, Label

FORMAT = 1
KEY = "genie_play"
SUFFIX = ".safetensors"

_LARGEST_HEADER = 100_000_000  # as safetensors itself
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16,
         "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64}  # fmt: skip
_FILLED = ("file", "sha256", "shapes")  # known from the file, not stored in it
T = TypeVar("T")


@dataclass(frozen=True)
class Header:
    """All that a checkpoint says: how the world is built, how it is sampled, what its actions do, where it is from."""

    world: WorldConfig
    path: PathConfig  # the path it was evaluated on and ships with
    labels: tuple[Label, ...] = tuple(Label(code) for code in range(N_ACTIONS))  # in order of code
    idle: int = 0  # the code that does least
    provenance: dict[str, Any] = field(default_factory=dict)  # how it was made: data, commands, versions, dates
    evaluation: dict[str, Any] = field(default_factory=dict)  # figures by name
    stages: dict[str, Any] = field(default_factory=dict)  # stage -> {"steps": ..., "frames": ...} of what is trained
    accepted: tuple[str, ...] = ("fp32",)  # arithmetics that were measured to be good enough for it
    format: int = FORMAT
    file: Path | None = field(default=None, compare=False)
    sha256: str = field(default="", compare=False)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict, compare=False)  # of every tensor, by name


def read(path: Path | str) -> Header:
    """Read the header of a checkpoint file; CheckpointError says what is wrong with it and what to do."""
    path = Path(path)
    table = _table(path)
    text = _expect(table.pop("__metadata__", {}), dict, path).get(KEY)
    if text is None:
        raise CheckpointError(f"{path} is not a Genie Play world: its metadata has no {KEY!r}; choose another file")
    data = _expect(_json(text, path), dict, path)
    version = data.get("format")
    if not isinstance(version, int) or version < 1:
        raise CheckpointError(f"{path} does not say its format version; the file is damaged, get it again")
    if version > FORMAT:
        raise CheckpointError(
            f"{path} has format {version} and this program reads up to {FORMAT}: it comes from a newer version, update"
        )
    for name in _FILLED:
        if name in data:
            raise CheckpointError(f"{path}: Header has an unknown field {name!r}; it may come from a newer version")
    try:
        header = from_dict(Header, data)
    except GenieError as error:
        raise CheckpointError(f"{path}: {error}") from None
    _check_labels(header, path)
    shapes = {name: tuple(entry["shape"]) for name, entry in table.items()}
    return dataclasses.replace(header, file=path, sha256=fingerprint(path), shapes=shapes)


def header_metadata(header: Header) -> dict[str, str]:
    """The metadata to give to a safetensors writer; equal headers give equal text."""
    data = to_dict(header)
    for name in _FILLED:
        del data[name]
    return {KEY: json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)}


def fingerprint(path: Path | str) -> str:
    """SHA-256 of the whole file, in hex."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None


def find(name: Path | str) -> Path:
    """The checkpoint file of a world: a shipped world's or the person's own by name, a file, or a folder with one."""
    text, path = str(name), Path(name).expanduser()
    if text in _named():
        return _named()[text]
    if path.is_file():
        return path
    if path.is_dir():
        return _only(path)
    known = ", ".join(names()) or "none yet; train one with 'genie-play train'"
    raise CheckpointError(f"no world is called {text!r} and there is no such file; worlds here: {known}")


def shipped() -> list[str]:
    """Names of the worlds that came with the program."""
    return sorted(_worlds_in(paths.models()))


def names() -> list[str]:
    """Names of all worlds: what is shipped, and the person's own."""
    return sorted(_named())


def atomic_write(path: Path | str, data: bytes) -> Path:
    """Write beside and rename, so that a killed process leaves the old file or the new one; GenieError if it fails."""
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise GenieError(f"cannot write {path}: {error.strerror}; choose another place") from None
    return path


def _table(path: Path) -> dict[str, Any]:
    """The JSON table at the start of a safetensors file, checked against the size of the file."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) == 8 and length <= _LARGEST_HEADER:
                text = file.read(length)
            elif len(start) == 8:
                raise CheckpointError(f"{path} is not a {SUFFIX} file; choose another")
            else:
                text = b""
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    cut = CheckpointError(f"{path} is cut short ({size} bytes); copy or download it again")
    if len(start) < 8 or len(text) < length:
        raise cut
    table = _expect(_json(text, path), dict, path)
    ends = [0]
    for name, entry in table.items():
        if name == "__metadata__":
            continue
        begin, end = _span(name, entry, path)
        if begin > end:
            raise CheckpointError(f"{path}: tensor {name!r} has impossible offsets; the file is damaged, get it again")
        ends.append(end)
    if 8 + length + max(ends) > size:
        raise cut
    if 8 + length + max(ends) < size:
        raise CheckpointError(f"{path} has {size - 8 - length - max(ends)} bytes too many; it is damaged, get it again")
    return table


def _span(name: str, entry: Any, path: Path) -> tuple[int, int]:
    """Where a tensor begins and ends in the data, checked against its shape."""
    try:
        bits, shape, (begin, end) = _BITS[entry["dtype"]], entry["shape"], entry["data_offsets"]
        if (
            all(type(n) is int and n >= 0 for n in (begin, end, *shape))
            and (end - begin) * 8 == math.prod(shape) * bits
        ):
            return begin, end
    except (KeyError, TypeError, ValueError):
        pass
    raise CheckpointError(f"{path}: the entry of tensor {name!r} makes no sense; the file is damaged, get it again")


def _json(text: str | bytes, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, TypeError, RecursionError):
        raise CheckpointError(f"{path} has a header that cannot be read; it is damaged or no {SUFFIX} file") from None


def _expect(value: Any, kind: type[T], path: Path) -> T:
    if not isinstance(value, kind):
        raise CheckpointError(f"{path} has a header of the wrong shape; it is damaged or no Genie Play world")
    return value


def _check_labels(header: Header, path: Path) -> None:
    if [label.code for label in header.labels] != list(range(N_ACTIONS)):
        raise CheckpointError(f"{path}: labels should name codes 0 to {N_ACTIONS - 1} in order")
    for label in header.labels:
        if label.name not in LABEL_NAMES:
            raise CheckpointError(f"{path}: code {label.code} has an unknown label {label.name!r}")
    if not 0 <= header.idle < N_ACTIONS:
        raise CheckpointError(f"{path}: idle code {header.idle} is outside 0..{N_ACTIONS - 1}")


def _named() -> dict[str, Path]:
    """Every world that has a name; what is shipped comes first and cannot be hidden by the person's own."""
    try:
        own = _worlds_in(paths.worlds())
    except ModuleNotFoundError:  # without platformdirs, as on a machine that only trains and measures, there are none
        own = {}
    return {**own, **_worlds_in(paths.models())}


def _worlds_in(folder: Path) -> dict[str, Path]:
    found = {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}
    found |= {path.stem: path for path in sorted(folder.glob(f"*/*{SUFFIX}")) if path.stem == path.parent.name}
    return found


def _only(folder: Path) -> Path:
    """The world in a folder: the only checkpoint, or the one that bears the folder's name."""
    files = sorted(folder.glob(f"*{SUFFIX}"))
    namesake = [file for file in files if file.stem == folder.resolve().name]
    if len(files) == 1 or namesake:
        return (namesake or files)[0]
    if not files:
        raise CheckpointError(f"the folder {folder} has no {SUFFIX} file; name one that has")
    raise CheckpointError(f"the folder {folder} has several worlds; name one of {', '.join(f.name for f in files)}")
