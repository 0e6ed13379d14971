"""Files that hold many photos each: Parquet as Hugging Face datasets write it, and tar shards as webdataset does."""

from detector.packed.entries import PACKED_SUFFIXES, Entry, Readable, entries, is_packed, packed_files

__all__ = ["PACKED_SUFFIXES", "Entry", "Readable", "entries", "is_packed", "packed_files"]
