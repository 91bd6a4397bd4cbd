"""The program around a bus: its loop, log, signals, supervised tasks, and the processes that a supervisor keeps."""
