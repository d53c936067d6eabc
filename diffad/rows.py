"""The rows of `images.parquet`: one for each image under each condition, and nothing derived."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from certify.checks import InputError
from certify.types import ScoreBounds
from diffad.conditions import KEY_COLUMNS, Condition, Subject, TestedImages

SCHEMA = pa.schema(
    [
        ("run_id", pa.string()),
        ("dataset", pa.string()),
        ("resolution", pa.int32()),
        ("image_index", pa.int32()),
        ("image_id", pa.string()),
        ("label", pa.int8()),
        ("defect", pa.string()),
        ("detector", pa.string()),
        ("smoothing", pa.string()),
        ("score_name", pa.string()),
        ("sigma", pa.float64()),
        ("n", pa.int32()),
        ("condition", pa.string()),
        ("norm", pa.string()),
        ("radius", pa.float64()),
        ("method", pa.string()),
        ("alpha", pa.float64()),
        ("alpha_kind", pa.string()),
        ("lower", pa.float64()),
        ("upper", pa.float64()),
        ("seed", pa.int64()),
        ("threshold", pa.float64()),
    ]
)


def to_table(conditions: Iterable[Condition]) -> pa.Table:
    """Rows of the conditions, ordered by condition and image index, in `SCHEMA`."""
    tables = [_condition_table(condition) for condition in sorted(conditions, key=lambda c: c.key)]
    return pa.concat_tables(tables) if tables else SCHEMA.empty_table()


def _condition_table(condition: Condition) -> pa.Table:
    order = np.argsort(condition.images.index)
    shared = {**condition.subject._asdict(), **condition.__dict__}
    columns: dict[str, Any] = {
        "image_index": condition.images.index[order],
        "image_id": [condition.images.identifiers[i] for i in order],
        "label": condition.images.labels[order],
        "defect": [condition.images.defects[i] for i in order],
        "lower": condition.bounds.lower[order],
        "upper": condition.bounds.upper[order],
    }
    arrays = [
        pa.array(columns[field.name], field.type)
        if field.name in columns
        else pa.repeat(pa.scalar(shared[field.name], field.type), len(order))
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def from_table(table: pa.Table) -> list[Condition]:
    """Conditions of a table in `SCHEMA`; refuses another schema and repeated images.

    Rows that were written before attacks had names lack `method`, and get an empty one.
    """
    if "method" not in table.schema.names:
        unnamed = pa.repeat(pa.scalar("", pa.string()), len(table))
        table = table.add_column(min(SCHEMA.get_field_index("method"), table.num_columns), "method", unnamed)
    if not table.schema.equals(SCHEMA):
        found, wanted = set(table.schema.names), set(SCHEMA.names)
        raise InputError(
            f"images.parquet: missing columns {sorted(wanted - found)}, "
            f"unknown columns {sorted(found - wanted)}"
            if found != wanted
            else f"images.parquet: types differ from the schema: {[str(f) for f in table.schema]}"
        )
    codes = [
        np.unique(table[name].fill_null(-1.0).to_numpy() if name == "sigma" else table[name].to_numpy(),
                  return_inverse=True)[1]
        for name in KEY_COLUMNS
    ]  # fmt: skip
    _, group = np.unique(np.stack(codes, axis=1), axis=0, return_inverse=True)
    groups = (
        [table.take(np.flatnonzero(group == g)) for g in range(int(group.max()) + 1)] if len(table) else []
    )
    return sorted((_condition_of(rows) for rows in groups), key=lambda condition: condition.key)


def _condition_of(rows: pa.Table) -> Condition:
    first = rows.slice(0, 1).to_pylist()[0]
    images = TestedImages(
        rows["image_index"].to_numpy().astype(np.int64),
        tuple(rows["image_id"].to_pylist()),
        rows["label"].to_numpy().astype(np.int64),
        tuple(rows["defect"].to_pylist()),
    )
    shared = {
        name: first[name]
        for name in (
            *("condition", "norm", "radius", "method", "n", "seed"),
            *("alpha", "alpha_kind", "threshold", "run_id"),
        )
    }
    subject = Subject(**{name: first[name] for name in Subject._fields})
    return Condition(
        subject, images, ScoreBounds(rows["lower"].to_numpy(), rows["upper"].to_numpy()), **shared
    )
