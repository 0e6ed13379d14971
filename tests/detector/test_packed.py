"""Files that hold many photos: what is in them is found and read, and hostile ones are refused with their name."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.errors import FileError
from detector.packed import entries, packed_files
from detector.packed import parquet as parquet_module

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def member(name: str, data: bytes, **also: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in also.items():
        setattr(info, key, value)
    return info, data


def write_tar(path: Path, members: Sequence[tuple[tarfile.TarInfo, bytes]], format: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=format) as tar:
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


def write_parquet(path: Path, photos: Sequence[bytes | None], labels: Sequence[Any], **how: Any) -> Path:
    """As `datasets` writes it: a struct of bytes and path, and the features in the metadata."""
    names = how.pop("names", None)
    table = pa.table({"image": [{"bytes": data, "path": f"{i}.jpg"} for i, data in enumerate(photos)], "label": list(labels)})
    features = {
        "image": {"_type": "Image"},
        "label": {"_type": "ClassLabel", "names": names} if names else {"dtype": "string"},
    }
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, **how)
    return path


def read_all(file: Path) -> tuple[list[bytes], list[str]]:
    """What can be read of a file, and what is said of the rest."""
    found, refused = [], []
    try:
        for entry in entries(file, file.name)[:50]:
            try:
                found.append(entry.read_bytes())
            except OSError as error:
                refused.append(error.strerror)
    except FileError as error:
        refused.append(error.message)
    return found, refused


def test_a_shard_gives_its_photos_with_labels_of_either_kind_in_any_order(tmp_path: Path) -> None:
    shard = write_tar(
        tmp_path / "a.tar",
        [
            member("x/0001.cls", b"fake\n"),
            member("x/0001.jpg", b"one"),
            member("0002.PNG", b"two"),
            member("0002.json", b'{"label": 1, "source": "gan"}'),
            member("0003.left.jpg", b"three"),
            member("notes.txt", b"no photo"),
        ],
    )
    found = entries(shard, "a.tar")
    assert [(e.name, e.label, e.read_bytes()) for e in found] == [
        ("a.tar/x/0001.jpg", "fake", b"one"),
        ("a.tar/0002.PNG", "1", b"two"),
        ("a.tar/0003.left.jpg", None, b"three"),
    ]
    assert found[0].folders == ("x",)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_links_devices_and_names_that_lead_outside_touch_no_file(tmp_path: Path, format: int) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    shard = write_tar(
        tmp_path / "a.tar",
        [
            member("link.jpg", b"", type=tarfile.SYMTYPE, linkname="secret.jpg"),
            member("hard.jpg", b"", type=tarfile.LNKTYPE, linkname="../secret.jpg"),
            member("null.jpg", b"", type=tarfile.CHRTYPE),
            member("../secret.jpg", b"own"),
            member("/secret.jpg", b"own"),
        ],
        format,
    )
    assert [entry.read_bytes() for entry in entries(shard, "a.tar")] == [b"own", b"own"]
    assert (tmp_path / "secret.jpg").read_bytes() == b"secret"


def test_sizes_that_lie_are_refused_with_the_names_of_file_and_member(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", [member("0001.jpg", b"x" * 600)])
    data = bytearray(shard.read_bytes())
    data[124:136] = b"77777777777\0"  # 8 GiB
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    shard.write_bytes(data)
    with pytest.raises(FileError, match=r"a\.tar: 0001\.jpg is said to end after the file does"):
        entries(shard, "a.tar")


def test_a_header_as_large_as_memory_is_not_read(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", [member("x" * 3_000_000 + ".jpg", b"x")], tarfile.GNU_FORMAT)
    with pytest.raises(FileError, match="a header of"):
        entries(shard, "a.tar")


def test_a_shard_that_became_shorter_and_a_label_too_large_are_told(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "a.tar", [member("1.jpg", b"x" * 5000)])
    (entry,) = entries(shard, "a.tar")
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(OSError, match="ends before the photo does"):
        entry.read_bytes()
    write_tar(shard, [member("1.cls", b"x" * (2 << 20))])
    with pytest.raises(FileError, match=r"1\.cls has 2097152 bytes"):
        entries(shard, "a.tar")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_shard_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    shard = write_tar(
        tmp_path_factory.mktemp("tar") / "a.tar", [member("1.jpg", b"x" * 700), member("1.json", b'{"label": "real"}')]
    )
    bad = bytearray(shard.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        bad[data.draw(st.integers(0, 3000))] = data.draw(st.integers(0, 255))
    shard.write_bytes(bad[: data.draw(st.integers(0, len(bad)))])
    found, refused = read_all(shard)
    assert sum(map(len, found)) <= len(bad)
    assert all("a.tar" in said for said in refused)


@pytest.mark.parametrize("rows", [1, 31, 32, 100])
@pytest.mark.parametrize("group", [1, 7, 1000])
def test_rows_come_back_whatever_order_they_are_asked_in(tmp_path: Path, rows: int, group: int) -> None:
    photos = [b"photo %d" % i for i in range(rows)]
    file = write_parquet(
        tmp_path / "train-0.parquet", photos, [i % 2 for i in range(rows)], names=["Real", "Fake"], row_group_size=group
    )
    found = entries(file, file.name)
    assert [entry.label for entry in found] == [("Real", "Fake")[i % 2] for i in range(rows)]
    assert found[0].name == f"train-0.parquet/{'0' * len(str(rows))}/0.jpg"
    for order in (np.arange(rows), np.arange(rows)[::-1], np.random.default_rng(0).permutation(rows)):
        assert [found[row].read_bytes() for row in order] == [photos[row] for row in order]


def test_a_plain_binary_column_and_labels_in_words_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(pa.table({"id": [1, 2], "img": [b"a", b"b"], "label": ["fake", None]}), file)
    assert [(e.read_bytes(), e.label) for e in entries(file, "a")] == [(b"a", "fake"), (b"b", None)]


def test_a_row_without_bytes_is_told_and_no_path_is_followed(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"secret")
    file = write_parquet(tmp_path / "a.parquet", [b"x", None], ["real", "fake"])
    good, bad = entries(file, "a")
    assert good.read_bytes() == b"x"
    with pytest.raises(OSError, match="row 1 holds no bytes"):
        bad.read_bytes()


def test_what_is_no_parquet_or_has_no_photos_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(b"PAR1 and then nothing of the kind PAR1")
    with pytest.raises(FileError, match=r"a\.parquet: can't be read as Parquet"):
        entries(file, "a")
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), file)
    with pytest.raises(FileError, match=r"no column `image` of encoded photos .* it has text, label"):
        entries(file, "a")
    write_parquet(file, [b"x" * 1000] * 20, ["real"] * 20)
    monkeypatch.setattr(parquet_module, "LARGEST_GROUP", 100)
    with pytest.raises(FileError, match="write it with smaller row groups"):
        entries(file, "a")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_table_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    file = write_parquet(tmp_path_factory.mktemp("pq") / "a.parquet", [b"x" * 50] * 40, ["real"] * 40, row_group_size=10)
    bad = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(bad)
    _, refused = read_all(file)
    assert all("a.parquet" in said or "row" in said for said in refused)


def test_packed_files_are_found_in_folders_and_compressed_ones_refused(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("data/b.tar", "a.parquet", "c.txt", ".hidden.tar"):
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in packed_files(tmp_path)] == ["a.parquet", "b.tar"]
    (tmp_path / "d.tar.gz").write_bytes(b"")
    with pytest.raises(FileError, match="unpack it"):
        packed_files(tmp_path)
