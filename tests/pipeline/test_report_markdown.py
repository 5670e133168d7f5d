"""The report in a pull request."""

from report_sample import sample_report

from edgepress.pipeline.report.markdown import markdown


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.replace("\\|", "").strip("|").split("|")]


def test_it_opens_with_the_verdict() -> None:
    assert markdown(sample_report()).startswith("## int8 is 6.0 times faster than the baseline")


def test_every_row_has_as_many_cells_as_the_head() -> None:
    report = sample_report()
    report.variants[1] = report.variants[1].model_copy(update={"name": "a|b"})
    text = markdown(report)
    for block in text.split("\n\n"):
        lines = block.splitlines()
        if lines[0].startswith("|"):
            assert len({len(cells(line)) for line in lines}) == 1


def test_only_the_chosen_row_is_bold() -> None:
    bold = [line for line in markdown(sample_report()).splitlines() if line.startswith("| **")]
    assert len(bold) == 1
    assert bold[0].startswith("| **int8** | **int8** | **97.6 % ±1.5** |")


def test_html_and_markdown_in_names_are_text() -> None:
    report = sample_report()
    report.variants[1] = report.variants[1].model_copy(update={"name": "<img src=x>`*_[a](b)\n# c"})
    text = markdown(report)
    assert "<img" not in text
    assert r"&lt;img src=x&gt;\`\*\_\[a\](b) \# c" in text


def test_a_stand_in_has_its_own_heading_and_the_device_none() -> None:
    text = markdown(sample_report(where="stand-in"))
    assert "### Stand-in: measured on this machine, not on the NVIDIA Jetson Nano\n" in text
    assert "On the NVIDIA Jetson Nano itself: not measured." in text
    assert "### Measured on this device" not in text


def test_without_a_budget_it_says_that_none_was_set() -> None:
    text = markdown(sample_report().model_copy(update={"budget": {}, "caveats": [], "data": None}))
    assert "### Budget\n\nNone was set." in text
