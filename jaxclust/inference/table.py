"""What is said of new images, as files: `predictions.csv` and `predictions.parquet`, complete or not there.

While they are made, every `BLOCK` images have a file of their own, renamed into place when it is whole. A command that
was killed finds those again and goes on with the rest, so that no image is missing or there twice.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jaxclust.data.new_images import CHUNK, Images
from jaxclust.inference.model import Sorted
from jaxclust.run import cells
from jaxclust.run.files import put, replacing

BLOCK = 16 * CHUNK  # images; at most as many are sorted again after a kill, in each block that was under way
COLUMNS = ("file", "cluster", "name", "confidence", "margin", "novel")
WORDS = {True: "true", False: "false", None: ""}
TABLES = CSV, PARQUET = "predictions.csv", "predictions.parquet"


class Blocks:
    """The blocks that are done, and those that are being filled.

    Args:
      folder: where they are.
      images: all that are to be sorted.
      clusters: number -> name.
      vectors: whether embeddings are kept too.
    """

    def __init__(self, folder: Path, images: Images, groups: Mapping[int, str], vectors: bool):
        self._folder, self._images, self.groups, self._vectors = folder, images, groups, vectors
        self._count = images.listing.count
        self._said: dict[int, list[tuple[np.ndarray, Sorted]]] = {}  # of each open block
        self._skipped: dict[int, list[tuple[int, str]]] = {}
        self._missing: dict[int, int] = {}  # rows

    def todo(self) -> list[range]:
        """The rows of each block that is not done."""
        blocks = (range(start, min(start + BLOCK, self._count)) for start in range(0, self._count, BLOCK))
        return [rows for rows in blocks if not self._path(rows.start).exists()]

    def add(self, rows: np.ndarray, said: Sorted) -> None:
        """Takes what is said of images i64[n], which may belong to several blocks."""
        for start in np.unique(rows // BLOCK) * BLOCK:
            here = rows // BLOCK * BLOCK == start
            part = jax.tree.map(lambda a, here=here: a[here], said)
            self._said.setdefault(start, []).append((rows[here], part))
            self._count_down(start, int(here.sum()))

    def skip(self, skipped: list[tuple[int, str]]) -> None:
        """Takes the rows that cannot be used, and why."""
        for row, reason in skipped:
            start = row // BLOCK * BLOCK
            self._skipped.setdefault(start, []).append((row, reason))
            self._count_down(start, 1)

    def skipped(self) -> list[tuple[int, str]]:
        """The rows that cannot be used, of all blocks that are done."""
        return [tuple(row) for path in self._done() for row in json.loads(_read(path).schema.metadata[b"skipped"])]

    def finish(self, folder: Path) -> tuple[int, int, dict[int, int]]:
        """Puts the blocks together, in the order of the images.

        Args:
          folder: where the tables go.

        Returns:
          the number of images, of novel ones, and of those in each cluster.
        """
        count = novel = 0
        sizes = dict.fromkeys(self.groups, 0)
        with (
            replacing(self._folder / CSV) as text,  # where what a kill leaves of these large files is cleared away
            replacing(self._folder / PARQUET) as parquet,
            text.open("w", encoding="utf-8", newline="") as f,
            parquet.open("wb") as content,  # Arrow knows no name that is not UTF-8
            contextlib.ExitStack() as opened,
        ):
            tables = None
            cells.write(f, [COLUMNS])
            for block in self._tables():
                tables = tables or opened.enter_context(pq.ParquetWriter(content, block.schema))
                tables.write_table(block)
                columns = [block[name].to_pylist() for name in COLUMNS]
                rows = zip(*columns)
                cells.write(f, ((*row[:3], f"{row[3]:.4f}", f"{row[4]:.4f}", WORDS[row[5]]) for row in rows))
                count, novel = count + len(block), novel + sum(map(bool, columns[-1]))
                for group in columns[1]:
                    sizes[group] += 1
        for name in (CSV, PARQUET):
            put(self._folder / name, folder / name)
        return count, novel, sizes

    def _count_down(self, start: int, rows: int) -> None:
        missing = self._missing.pop(start, min(BLOCK, self._count - start)) - rows
        if missing:
            self._missing[start] = missing
        else:
            self._write(start, self._said.pop(start, []), self._skipped.pop(start, []))

    def _write(self, start: int, said: list[tuple[np.ndarray, Sorted]], skipped: list[tuple[int, str]]) -> None:
        table = pa.table({})
        if said:
            rows = np.concatenate([rows for rows, _ in said])
            order = np.argsort(rows)

            def joined(pick: Callable[[Sorted], np.ndarray]) -> np.ndarray:
                return np.concatenate([pick(part) for _, part in said])[order]

            group = joined(lambda part: part.group)
            columns = {
                "file": pa.array([printable(self._images.name(row)) for row in rows[order]]),
                "cluster": pa.array(group, pa.int64()),
                "name": pa.array([self.groups[number] for number in group.tolist()]),
                "confidence": pa.array(joined(lambda part: part.confidence), pa.float32()),
                "margin": pa.array(joined(lambda part: part.margin), pa.float32()),
                "novel": pa.nulls(len(rows), pa.bool_())
                if said[0][1].novel is None
                else pa.array(joined(lambda part: part.novel)),
            }
            for name in said[0][1].embeddings if self._vectors else ():
                x = joined(lambda part, name=name: part.embeddings[name]).astype(np.float32)
                columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), x.shape[1])
            table = pa.table(columns)
        table = table.replace_schema_metadata({"skipped": json.dumps(sorted(skipped))})
        with replacing(self._path(start)) as path, path.open("wb") as content:
            pq.write_table(table, content)

    def _tables(self) -> Iterator[pa.Table]:
        for path in self._done():
            table = _read(path).replace_schema_metadata(None)
            if len(table):
                yield table

    def _path(self, start: int) -> Path:
        return self._folder / f"{start:012d}.parquet"

    def _done(self) -> list[Path]:
        return sorted(self._folder.glob("[0-9]*.parquet"))


def _read(path: Path) -> pa.Table:
    with path.open("rb") as content:
        return pq.read_table(content)


def printable(name: str) -> str:
    """A file's name as UTF-8 can say it; what it cannot is backslashed, as in `skipped.csv`."""
    return name.encode("utf-8", errors="backslashreplace").decode()
