"""A traceback is shown to the author of a function without our frames, and with all of theirs."""

from __future__ import annotations

from gateway.traces import authors_part

OURS = '  File "/x/lib/gateway/engine/local.py", line 46, in invoke\n    await handler(context)\n    ^^^^^^\n'
THEIRS = '  File "/srv/gateway/functions/mine.py", line 9, in f\n    return 1 / 0\n           ~~^~~\n'
HEADING = "Traceback (most recent call last):\n"


def test_our_frames_go_and_the_authors_stay_whatever_their_folder_is_called():
    assert authors_part(f"{HEADING}{OURS}{THEIRS}ZeroDivisionError: no") == f"{HEADING}{THEIRS}ZeroDivisionError: no"


def test_an_error_with_no_frame_of_the_authors_is_its_message_alone():
    assert authors_part(f"{HEADING}{OURS}PayloadMismatch: $.id\n") == "PayloadMismatch: $.id"


def test_causes_and_the_lines_of_a_message_stay():
    again = "\nThe above exception was the direct cause of the following exception:\n\n"
    repeated = "  [Previous line repeated 3 more times]\n"
    text = f"{HEADING}{THEIRS}ValueError: first\n    second line\n{again}{HEADING}{OURS}{THEIRS}{repeated}KeyError: 'a'"
    assert authors_part(text) == text.replace(OURS, "")


def test_where_a_syntax_error_is_stays():
    place = '  File "/srv/functions/mine.py", line 1\n    def broken(:\n               ^\n'
    frozen = '  File "<frozen importlib._bootstrap_external>", line 936, in exec_module\n'
    assert authors_part(f"{HEADING}{frozen}{place}SyntaxError: invalid syntax") == f"{HEADING}{place}SyntaxError: invalid syntax"


def test_of_no_traceback_nothing_is_left():
    assert authors_part("") == ""
