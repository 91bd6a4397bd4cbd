"""What the processes of this application share, their bus; and `python -m consumers`, which is the worker.

All groups are in `handlers.GROUPS`. Which of them a process runs is said where it is started, by `--group`: in
compose.yaml, which has a service for each kind, and in deploy/systemd.
"""
