"""Statistics, tables, the published board: everything that reports records, and nothing that runs them.

board = build(load_records("gkdbench-runs"))
print(to_text(board))
"""

from gkdbench.report.board import build, table_of
from gkdbench.report.comparison import Comparison, compare
from gkdbench.report.csvtable import to_csv
from gkdbench.report.html import to_html
from gkdbench.report.loading import load_records
from gkdbench.report.markdown import Selection, markdown_table, splice, to_markdown
from gkdbench.report.model import Board, Expected
from gkdbench.report.text import to_text

__all__ = [
    "Board",
    "Comparison",
    "Expected",
    "Selection",
    "build",
    "compare",
    "load_records",
    "markdown_table",
    "splice",
    "table_of",
    "to_csv",
    "to_html",
    "to_markdown",
    "to_text",
]
