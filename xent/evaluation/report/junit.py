"""Gates as JUnit XML, which the pages of CI systems show: a test for each gate, with its failure.

Elements and attributes are those that readers of the format have in common [1]_.

.. [1] https://github.com/testmoapp/junitxml
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from xent.evaluation.report.gates import Verdict
from xent.text import visible


def junit_xml(command: str, verdicts: Sequence[Verdict], seconds: float) -> str:
    """The text of the document: one suite of the command, which took so many seconds.

    Examples
    --------
    >>> text = junit_xml("evaluate", [Verdict("loss>2", "loss is 3", failed=True)], 1.5)
    >>> text.splitlines()[2]
    '  <testsuite name="xent evaluate" tests="1" failures="1" errors="0" skipped="0" time="1.500">'
    """
    counts = {"name": "xent", "tests": f"{len(verdicts)}", "failures": f"{sum(each.failed for each in verdicts)}"}
    counts |= {"errors": "0", "skipped": "0", "time": f"{seconds:.3f}"}
    root = Element("testsuites", counts)
    suite = SubElement(root, "testsuite", {**counts, "name": f"xent {command}"})
    for verdict in verdicts:
        case = SubElement(suite, "testcase", name=visible(verdict.gate), classname=f"xent.{command}", time="0")
        if verdict.failed:
            failure = SubElement(case, "failure", message=visible(verdict.found), type="gate")
            failure.text = visible(f"{verdict.gate}: {verdict.found}")
        else:
            SubElement(case, "system-out").text = visible(verdict.found)
    indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{tostring(root, encoding="unicode")}\n'
