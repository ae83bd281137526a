"""What DVC keeps of a project's files, in its cache and on its remote: objects, named by the MD5 of their content.

DVC believes a name: it sees no changed bit of an object that it wrote, checks out what is damaged, and pushes no good
copy over a damaged one. Here every object is read and compared with its name, and a damaged one is replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import shutil
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from weightzoo.errors import FormatError
from weightzoo.redaction import redact

_AT_ONCE = 1 << 20  # bytes that are read at once
_FOLDER = ".dir"  # ends the name of an object that lists a folder's files
_log = logging.getLogger("weightzoo")


@dataclass(frozen=True)
class DamagedObject:
    """An object whose content is not that of its name."""

    place: str  # cache | remote
    path: str  # where it lies
    name: str
    file: Path  # the file of the project whose content it should have; a folder, if it is the list of that one's files

    def __str__(self) -> str:
        return f"{self.path}: does not match its hash, DVC's {self.place} has it for {self.file}"


class KeptFiles:
    """The objects of the outputs that `dvc.lock` has below some paths of a project."""

    def __init__(self, repo: Any, paths: tuple[Path, ...]) -> None:
        """`repo` is DVC's."""
        self._repo = repo
        wanted = {path.absolute() for path in paths}
        self._outputs: dict[Path, str] = {
            Path(out.fs_path): out.hash_info.value
            for out in repo.index.outs
            if Path(out.fs_path) in wanted and out.hash_info and out.hash_info.name == "md5"
        }

    @cached_property
    def _places(self) -> dict[str, Any]:
        """DVC's stores of objects: the cache, and the default remote if there is one."""
        places: dict[str, Any] = {"cache": self._repo.cache.local}
        if self._repo.config["core"].get("remote"):
            places["remote"] = self._repo.cloud.get_remote_odb(command="push")
        return places

    def _found(self, place: str, name: str) -> str | None:
        """The MD5 of what a store has under a name; None if it has nothing, or does not answer."""
        store = self._places.get(place)
        try:
            return None if store is None else _md5(store.fs, store.oid_to_path(name))
        except Exception as error:  # each kind of remote has errors of its own
            if place != "remote":
                raise
            del self._places[place]
            why = redact(" ".join(str(error).split()))
            _log.warning("DVC's remote is not looked at, since it can't be read: %s", why)
            return None

    def damaged(self) -> list[DamagedObject]:
        """All objects that are there, but do not match their names. Everything is read, of a remote too."""
        found: list[DamagedObject] = []
        for output in self._outputs:
            for file, name in self._objects(output).items():
                for place, store in [*self._places.items()]:
                    if self._found(place, name) not in (None, name.removesuffix(_FOLDER)):
                        found.append(DamagedObject(place, store.oid_to_path(name), name, file))
        return found

    def mend(self, damaged: DamagedObject) -> bool:
        """Put a good copy in the place of an object, from the project or another store; False if there is none."""
        store = self._places[damaged.place]
        source = self._good_copy(damaged.name, damaged.file)
        if source is None:
            return False
        fs, path = source
        with contextlib.suppress(FileNotFoundError):
            store.fs.remove(damaged.path)
        store.add(path, fs, damaged.name, hardlink=False, check_exists=False)
        return True

    def restorable(self, folder: Path) -> list[Path]:
        """The files of a folder that are not as `dvc.lock` has them, if they can be taken from DVC.

        None can if no other file of the folder is as in `dvc.lock`: then it is of another version.
        """
        output = folder.absolute()
        if output not in self._outputs:
            return []
        files = {file: name for file, name in self._objects(output).items() if file != output}
        differing = [file for file, name in files.items() if _md5(None, file) != name]
        if len(differing) == len(files) or any(self._good_copy(files[file], None) is None for file in differing):
            return []
        return differing

    def restore(self, folder: Path) -> None:
        """Take the files that are `restorable` from DVC, each whole or not at all."""
        output = folder.absolute()
        for file in self.restorable(folder):
            source = self._good_copy(self._objects(output)[file], None)
            assert source is not None
            fs, path = source
            partial = file.with_name(f".{file.name}.partial")
            with fs.open(path, "rb") as there, partial.open("wb") as here:
                shutil.copyfileobj(there, here, _AT_ONCE)
            partial.replace(file)  # what lay there may be a link to the cache

    def _objects(self, output: Path) -> dict[Path, str]:
        """The objects of an output by the file that each is of; of a folder also the list of its files."""
        name = self._outputs[output]
        if not name.endswith(_FOLDER):
            return {output: name}
        listing = self._listing(output, name)
        if listing is None:
            return {output: name}
        return {output: name, **{output / one["relpath"]: one["md5"] for one in json.loads(listing)}}

    def _listing(self, output: Path, name: str) -> bytes | None:
        """The list of a folder's files as DVC wrote it, made anew if no store has it whole."""
        wanted = name.removesuffix(_FOLDER)
        for place, store in [*self._places.items()]:
            if self._found(place, name) == wanted:
                content: bytes = store.fs.cat_file(store.oid_to_path(name))
                return content
        files = sorted(file for file in output.rglob("*") if file.is_file())
        entries = [{"md5": _md5(None, file), "relpath": file.relative_to(output).as_posix()} for file in files]
        content = json.dumps(entries, sort_keys=True).encode()  # DVC's form, which its MD5 confirms
        return content if hashlib.md5(content, usedforsecurity=False).hexdigest() == wanted else None

    def _good_copy(self, name: str, file: Path | None) -> tuple[Any, str] | None:
        """A file system and path with the content of an object, of `file` if that has it; None if there is no such."""
        return next(self._good_copies(name, file), None)

    def _good_copies(self, name: str, file: Path | None) -> Iterator[tuple[Any, str]]:
        from dvc.fs import LocalFileSystem, MemoryFileSystem  # pyright: ignore[reportPrivateImportUsage]

        if name.endswith(_FOLDER):
            listing = None if file is None else self._listing(file, name)
            if listing is not None:
                memory = MemoryFileSystem(global_store=False)
                memory.pipe_file("/listing", listing)
                yield memory, "/listing"
            return
        if file is not None and _md5(None, file) == name:
            yield LocalFileSystem(), str(file)
        for place, store in [*self._places.items()]:
            if self._found(place, name) == name:
                yield store.fs, store.oid_to_path(name)


@contextlib.contextmanager
def kept_files(root: Path, *paths: Path) -> Generator[KeptFiles | None]:
    """What DVC keeps of the outputs at these paths; None if the folder `root` is no DVC project.

    Raises:
        FormatError: DVC can't read the project, such as its `dvc.lock`.
    """
    if not (root / ".dvc").is_dir():
        yield None
        return
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        repo = Repo(str(root.absolute()))
        kept = KeptFiles(repo, paths)
    except DvcException as error:
        said = redact(" ".join(str(error).split()))
        raise FormatError(
            f"{root.absolute()}: DVC can't read the project ({said}); restore its files, as by `git checkout dvc.lock`"
        ) from None
    try:
        yield kept
    finally:
        repo.close()


def _md5(fs: Any, path: Path | str) -> str | None:
    """The MD5 of a file, here if `fs` is None; None if it is not there."""
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with Path(path).open("rb") if fs is None else fs.open(path, "rb") as file:
            while block := file.read(_AT_ONCE):
                digest.update(block)
    except (FileNotFoundError, IsADirectoryError):
        return None
    return digest.hexdigest()
