"""The headers that say how much of a table is kept, of answers that are the table's bytes. Constants alone.

They are as `truncated`, `resultRows` and `totalRows` of a page of JSON. The last is absent where nobody has counted.
"""

TRUNCATED = "X-Result-Truncated"
RESULT_ROWS = "X-Result-Rows"
TOTAL_ROWS = "X-Result-Total-Rows"
