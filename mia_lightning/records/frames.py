"""Tables in memory: pandas, Polars, pyarrow."""

import re

from mia_lightning.errors import MIAError, reason
from mia_lightning.records.tables import Table, checked_table


def frame_table(frame: object, source: str) -> Table:
    """Return a pandas, Polars or pyarrow table in memory; an index with a name is a column.

    Args:
        frame: Anything that exports Arrow columns.
        source: Its name for messages.

    Raises:
        MIAError: it is not a table, or has columns of one name or without plain values.
    """
    import pyarrow as pa

    try:
        table = pa.table(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise MIAError(
            f"{source}: cannot be read as a table ({reason(error)}); give numbers or text in named columns"
        ) from None
    unnamed = [name for name in table.column_names if re.fullmatch(r"__index_level_\d+__", name)]
    table = table.drop_columns(unnamed)
    for index, field in enumerate(table.schema):
        if pa.types.is_string_view(field.type):  # of Polars
            table = table.set_column(index, field.name, table.column(index).cast(pa.string()))
    return checked_table(table, source, 0)
