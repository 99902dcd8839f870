"""A farm of random calls: each is made through many doors, and every answer is held to an exact one.

``make fuzz`` runs it for a time, ``tests/test_fuzz.py`` for a moment and again on the calls that failed before, which
are kept in ``cases``. ``calls`` says what a call is, ``drawing`` draws one, ``exact_numbers`` computes rows in extended
precision, ``answers`` makes the answers of a call of them, ``doors`` makes the call through every library, kernel and
transform, ``verdict`` compares, ``shrinking`` makes a failing call small, ``farm`` does it all until the time is over.
Leaves out what no random call shows: memory, laziness, the words of messages; the other tests have those.
"""
