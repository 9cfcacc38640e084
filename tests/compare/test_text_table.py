from cam_callbacks.text_table import columns, line, printable, shorten, table


def test_columns_are_as_wide_as_their_widest_cell():
    rows = [("name", "grid"), ("layer4", "7×7"), ("漢字", "14×14")]
    assert table(rows, "<>") == ["name       grid", "layer4      7×7", "漢字      14×14"]


def test_a_cell_is_cut_to_its_width():
    assert line(["a long name", "1.25"], [8, 6], "<>") == "a long …  1.25"
    assert line(["a", "b", "c"], [3, 3, 3]) == "a  b  c"


def test_wide_and_combining_characters_count_as_a_terminal_counts_them():
    assert columns("漢字") == 4 and columns("e\u0301") == 1
    assert shorten("漢字漢字", 5) == "漢字…"
    assert printable("\x1b[31mred\n line\ud800") == "\\x1b[31mred line\\ud800"
    assert printable("invoice\u202egpj.exe") == "invoice\\u202egpj.exe"
