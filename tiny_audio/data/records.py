"""The rows of a dataset as they are stored: manifest lines, a Parquet table, or a `datasets` dataset, with one face."""

import csv
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tiny_audio.errors import TinyAudioError

MANIFEST_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
IN_MEMORY_BYTES = 2 << 30  # Parquet up to this size is read into memory; more is memory-mapped through `datasets`
csv.field_size_limit(1 << 24)


class Records(Protocol):
    """Rows as dicts, and a whole column where only one is needed."""

    @property
    def column_names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...

    def column(self, name: str) -> list[Any]: ...

    def audio_paths(self, name: str) -> list[str | None]:
        """File names in an audio column, without reading the bytes that stand beside them."""
        ...


class ListRecords:
    """Rows of a manifest, held as dicts."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.column_names = list(dict.fromkeys(name for row in rows for name in row))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.rows[index]

    def column(self, name: str) -> list[Any]:
        return [row.get(name) for row in self.rows]

    def audio_paths(self, name: str) -> list[str | None]:
        return [audio_path(row.get(name)) for row in self.rows]


class TableRecords:
    """Rows of an Arrow table in memory."""

    def __init__(self, table: Any) -> None:
        self.table = table
        self.column_names = table.column_names

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.table.slice(index, 1).to_pylist()[0]

    def column(self, name: str) -> list[Any]:
        return self.table.column(name).to_pylist()

    def audio_paths(self, name: str) -> list[str | None]:
        return _arrow_paths(self.table.column(name))


class HubRecords:
    """Rows of a `datasets.Dataset`, memory-mapped; its audio comes as bytes and path, not decoded."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = undecoded(dataset)
        self.column_names = dataset.column_names

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.dataset[index]

    def column(self, name: str) -> list[Any]:
        return self.dataset.select_columns(name)[:][name]

    def audio_paths(self, name: str) -> list[str | None]:
        return _arrow_paths(self.dataset.data.column(name))


def audio_path(cell: Any) -> str | None:
    """The file name in an audio cell, if it has one."""
    path = cell.get("path") if isinstance(cell, dict) else cell
    return path if isinstance(path, str) and path else None


def _arrow_paths(column: Any) -> list[str | None]:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(column.type) and column.type.get_field_index("path") >= 0:
        column = pc.struct_field(column, "path")
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return [path or None for path in column.to_pylist()] if is_text else [None] * len(column)


def undecoded(dataset: Any) -> Any:
    """Every audio column of a `datasets` dataset as bytes and path: its own decoding needs torchcodec."""
    from datasets import Audio

    for name, feature in (dataset.features or {}).items():
        if isinstance(feature, Audio):
            dataset = dataset.cast_column(name, Audio(decode=False))
    return dataset


def open_records(files: Sequence[Path]) -> Records:
    """Opens the Parquet or manifest files of one split as one sequence of rows.

    Raises:
        TinyAudioError: a file cannot be parsed; names it and, for a manifest, the line.
    """
    if files[0].suffix == ".parquet":
        return _open_parquet(files)
    return ListRecords([row for file in files for row in read_manifest(file)])


def iterate_records(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The same rows one after the other, in bounded memory."""
    for file in files:
        if file.suffix == ".parquet":
            yield from _iterate_parquet(file)
        else:
            yield from read_manifest(file)


def column_names(files: Sequence[Path]) -> list[str]:
    """Names of the columns, without reading the rows of a Parquet file."""
    if files[0].suffix != ".parquet":
        return list(ListRecords(list(read_manifest(files[0]))).column_names)
    with _parquet_errors(files[0]):
        import pyarrow.parquet as pq

        return pq.read_schema(files[0]).names


def count_records(files: Sequence[Path]) -> int:
    """How many rows the files hold."""
    import pyarrow.parquet as pq

    if files[0].suffix == ".parquet":
        return sum(pq.read_metadata(file).num_rows for file in files)
    return sum(1 for _ in iterate_records(files))


@contextmanager
def _parquet_errors(file: Path) -> Iterator[None]:
    from pyarrow import ArrowException

    try:
        yield
    except ArrowException as error:
        reason = str(error).splitlines()[0]
        raise TinyAudioError(f"{file} is not a readable Parquet file ({reason}); write it again.") from error


def _open_parquet(files: Sequence[Path]) -> Records:
    if sum(file.stat().st_size for file in files) > IN_MEMORY_BYTES:
        return _map_parquet(files)
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = []
    for file in files:
        with _parquet_errors(file):
            tables.append(pq.read_table(file, partitioning=None))
    return TableRecords(pa.concat_tables(tables, promote_options="default"))


def _map_parquet(files: Sequence[Path]) -> HubRecords:
    import datasets

    names = [str(file) for file in files]
    return HubRecords(datasets.load_dataset("parquet", data_files={"train": names}, split="train"))


def _iterate_parquet(file: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with _parquet_errors(file), pq.ParquetFile(file) as parquet:
        for batch in parquet.iter_batches(batch_size=64):
            yield from batch.to_pylist()


def read_manifest(file: Path) -> Iterator[dict[str, Any]]:
    """Rows of a JSON Lines, JSON, CSV or TSV manifest, as they stand.

    Raises:
        TinyAudioError: a line is not what the suffix says; names the file and the line.
    """
    reader = _read_delimited if file.suffix in (".csv", ".tsv") else _read_json
    try:
        yield from reader(file)
    except UnicodeDecodeError as error:
        raise TinyAudioError(f"{file} is not UTF-8 text ({error.reason}); save the manifest as UTF-8.") from error


def _read_delimited(file: Path) -> Iterator[dict[str, Any]]:
    # A quotation mark in a TSV is text: with quoting, one stray mark would swallow the lines after it.
    style: dict[str, Any] = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if file.suffix == ".tsv" else {}
    with open(file, newline="", encoding="utf-8-sig") as lines:
        reader = csv.DictReader(lines, **style)
        for row in reader:
            if None in row:
                raise TinyAudioError(
                    f"{file} line {reader.line_num} has more fields than the header "
                    f"({', '.join(reader.fieldnames or ())}); quote texts that contain the delimiter."
                )
            yield row


def _read_json(file: Path) -> Iterator[dict[str, Any]]:
    with open(file, encoding="utf-8-sig") as lines:
        first = lines.read(1)
        lines.seek(0)
        if file.suffix == ".json" and first == "[":
            yield from _rows_of(file, enumerate(_parse_json(file, lines.read(), 1), start=1))
        else:
            numbered = ((number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip())
            yield from _rows_of(file, ((number, _parse_json(file, line, number)) for number, line in numbered))


def _parse_json(file: Path, text: str, number: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise TinyAudioError(
            f"{file} line {number + error.lineno - 1} is not JSON ({error.msg}); expected one object a line."
        ) from error


def _rows_of(file: Path, numbered: Iterator[tuple[int, Any]]) -> Iterator[dict[str, Any]]:
    for number, row in numbered:
        if not isinstance(row, dict):
            raise TinyAudioError(f"{file} line {number} is {type(row).__name__}; expected an object with the columns.")
        yield row
