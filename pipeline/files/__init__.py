"""File work behind one small interface: see README.md."""

from pipeline.files.atomic import create_anew, discard, finish, temporary_name, write_atomically
from pipeline.files.base import Files, WritableFile
from pipeline.files.errors import BrokenFile, DiskFull, LockedDirectory
from pipeline.files.lock import DirectoryLock, is_locked
from pipeline.files.real import RealFiles

__all__ = [
    "BrokenFile",
    "DirectoryLock",
    "DiskFull",
    "Files",
    "LockedDirectory",
    "RealFiles",
    "WritableFile",
    "create_anew",
    "discard",
    "finish",
    "is_locked",
    "temporary_name",
    "write_atomically",
]
