"""Every table of the family by its name."""

from __future__ import annotations

from mobilenet.family import edgetpu, facenet, multi, v1, v2, v3, v4
from mobilenet.family.rows import Table

TABLES: dict[str, Table] = {
    **v1.TABLES,
    **v2.TABLES,
    **v3.TABLES,
    **edgetpu.TABLES,
    **multi.TABLES,
    **v4.TABLES,
    **facenet.TABLES,
}
