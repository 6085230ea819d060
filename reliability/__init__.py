"""Three trials that try to lose a user's work or to get past the readers.

`soak.py` kills a training at random moments, again and again: its weights and curves must come out the same, byte by
byte. `scenarios.py` runs `dvc repro` wherever a user may run it: read-only data, full disks, no network, little memory.
`malformed.py` reads thousands of malformed files: each is handled or refused by name.

    python reliability --kills 100 --inputs 20000 -o results/reliability.md

tests/test_reliability.py does the same in small.
"""
