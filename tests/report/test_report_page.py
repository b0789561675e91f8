"""What all reports share: where a page can be written, and cells without a figure."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_html import Page

from mobilenet.errors import ArgumentError
from mobilenet.report.page import check_target, key, page, share_cell, write_html


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    check_target(tmp_path / "new.html")
    assert list(tmp_path.iterdir()) == [], "asking leaves nothing behind"
    with pytest.raises(ArgumentError, match=r"new\.html: cannot be written: there is no folder .*absent"):
        check_target(tmp_path / "absent" / "new.html")
    with pytest.raises(ArgumentError, match="is a folder"):
        check_target(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ArgumentError, match="there is no folder"):
        check_target(tmp_path / "file" / "new.html")


def test_a_page_replaces_the_one_before_and_leaves_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    target.write_text("the one before")
    write_html(target, page("Ärzte \udcff", ["<p>new</p>"]))
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert Page(target.read_text("utf-8")).text("h1") == "Ärzte \\udcff"


def test_what_is_not_known_is_below_what_is_nothing() -> None:
    unknown, nothing = (Page(share_cell(share)).named("td")[0]["data-value"] for share in (None, 0.0))
    assert float(unknown) < float(nothing)


def test_a_legend_keeps_names_as_texts() -> None:
    entry = Page(key((1, 2, 3), "<b onclick=x>"))
    assert [tag for tag, _ in entry.elements] == ["span", "span"]
    assert entry.elements[1][1]["style"] == "background: rgb(1, 2, 3)"
    assert "<b onclick=x>" in [data for _, data in entry.texts]
