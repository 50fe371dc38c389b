"""What every implementation of ``Files`` does. A subclass gives ``files`` and ``root``, an empty directory."""

from __future__ import annotations

import os

import pytest

from pipeline.files import Files, write_atomically


class FilesContract:
    @pytest.fixture
    def files(self) -> Files:
        raise NotImplementedError

    @pytest.fixture
    def root(self) -> str:
        raise NotImplementedError

    def test_writes_follow_each_other_and_say_where_they_begin(self, files: Files, root: str) -> None:
        file = files.create(f"{root}/a")
        assert [file.write(b"abc"), file.write(bytearray(b"")), file.write(memoryview(b"defg"))] == [0, 3, 3]
        assert (file.size, file.name) == (7, f"{root}/a")
        assert files.read(f"{root}/a") == b"abcdefg", "what was written is visible before it is synced"
        file.sync()
        file.close()
        file.close()

    def test_parts_of_one_write_follow_each_other(self, files: Files, root: str) -> None:
        file = files.create(f"{root}/a")
        assert file.write(b"ab", b"", memoryview(b"cde"), bytearray(b"f")) == 0
        assert (file.write(b"", b""), file.write(b"", b"g"), file.size) == (6, 6, 7)
        file.close()
        assert files.read(f"{root}/a") == b"abcdefg"

    def test_a_wide_buffer_is_written_whole(self, files: Files, root: str) -> None:
        import numpy as np

        values = np.arange(1000, dtype=np.int64)
        file = files.create(f"{root}/a")
        assert file.write(values.data) == 0
        assert file.size == 8000
        file.close()
        assert files.read(f"{root}/a") == values.tobytes()

    def test_read_takes_a_part_and_stops_at_the_end(self, files: Files, root: str) -> None:
        write_atomically(files, f"{root}/a", b"0123456789")
        assert files.read(f"{root}/a", 3) == b"3456789"
        assert files.read(f"{root}/a", 3, 4) == b"3456"
        assert files.read(f"{root}/a", 8, 100) == b"89"
        assert files.read(f"{root}/a", 10, 5) == files.read(f"{root}/a", 99) == files.read(f"{root}/a", 2, 0) == b""

    def test_open_append_goes_on_at_the_end(self, files: Files, root: str) -> None:
        write_atomically(files, f"{root}/a", b"old")
        file = files.open_append(f"{root}/a")
        assert (file.size, file.write(b"new")) == (3, 3)
        file.close()
        assert files.read(f"{root}/a") == b"oldnew"

    def test_create_refuses_a_name_that_is_taken(self, files: Files, root: str) -> None:
        files.create(f"{root}/a").close()
        with pytest.raises(FileExistsError, match=f"{root}/a"):
            files.create(f"{root}/a")

    @pytest.mark.parametrize("call", ["open_append", "read", "size", "remove", "remove_dir", "list", "sync_dir"])
    def test_what_is_missing_is_named(self, files: Files, root: str, call: str) -> None:
        with pytest.raises(FileNotFoundError) as raised:
            getattr(files, call)(f"{root}/nothing")
        assert raised.value.filename == f"{root}/nothing"

    def test_a_closed_file_takes_nothing(self, files: Files, root: str) -> None:
        file = files.create(f"{root}/a")
        file.close()
        with pytest.raises(ValueError, match="closed"):
            file.write(b"x")
        with pytest.raises(ValueError, match="closed"):
            file.sync()

    def test_truncate_cuts_and_appending_goes_on_there(self, files: Files, root: str) -> None:
        write_atomically(files, f"{root}/a", b"0123456789")
        files.truncate(f"{root}/a", 4)
        assert files.size(f"{root}/a") == 4
        file = files.open_append(f"{root}/a")
        assert file.write(b"x") == 4
        file.close()
        assert files.read(f"{root}/a") == b"0123x"

    def test_directories_are_made_listed_renamed_and_removed(self, files: Files, root: str) -> None:
        files.make_dirs(f"{root}/d/e")
        files.make_dirs(f"{root}/d/e")
        for name in ("b", "a", "c"):
            files.create(f"{root}/d/e/{name}").close()
        files.rename(f"{root}/d/e", f"{root}/d/f")
        files.sync_dir(f"{root}/d")
        assert (files.list(f"{root}/d"), files.list(f"{root}/d/f")) == (["f"], ["a", "b", "c"])
        assert (files.exists(f"{root}/d/e"), files.exists(f"{root}/d/f"), files.exists(f"{root}/d/f/a")) == (0, 1, 1)
        with pytest.raises(OSError, match="not empty"):
            files.remove_dir(f"{root}/d/f")
        for name in files.list(f"{root}/d/f"):
            files.remove(f"{root}/d/f/{name}")
        files.remove_dir(f"{root}/d/f")
        assert files.list(f"{root}/d") == []

    def test_a_linked_file_outlives_its_first_name(self, files: Files, root: str) -> None:
        write_atomically(files, f"{root}/a", b"bytes")
        files.make_dirs(f"{root}/d")
        files.link(f"{root}/a", f"{root}/d/b")
        files.remove(f"{root}/a")
        assert files.read(f"{root}/d/b") == b"bytes"
        with pytest.raises(FileExistsError):
            files.link(f"{root}/d/b", f"{root}/d/b")

    def test_rename_replaces_a_file(self, files: Files, root: str) -> None:
        write_atomically(files, f"{root}/a", b"old")
        write_atomically(files, f"{root}/b", b"new")
        files.rename(f"{root}/b", f"{root}/a")
        assert (files.read(f"{root}/a"), files.list(root)) == (b"new", ["a"])

    def test_a_directory_does_not_take_the_name_of_a_file(self, files: Files, root: str) -> None:
        files.create(f"{root}/a").close()
        with pytest.raises(OSError) as raised:  # noqa: PT011 - the class differs between systems, the path does not
            files.make_dirs(f"{root}/a/b")
        assert os.path.commonpath([str(raised.value.filename), root]) == root

    def test_write_atomically_leaves_nothing_but_the_new_file(self, files: Files, root: str) -> None:
        write_atomically(files, f"{root}/a", b"old")
        files.create(f"{root}/.new-a").close()
        write_atomically(files, f"{root}/a", b"new")
        assert (files.list(root), files.read(f"{root}/a")) == (["a"], b"new")
