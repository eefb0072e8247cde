"""What `make bench` prints: how small and how fast claimd is on this machine, beside what it stands on.

No test: nothing here fails for being slow.
"""
