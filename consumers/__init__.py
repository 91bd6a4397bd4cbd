"""What the processes of this application share, their bus; and `python -m consumers`, which is the worker."""
