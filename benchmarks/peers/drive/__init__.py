"""What the drivers of the peers share. It runs under their interpreters: the standard library alone.

protocol     the command line, and the lines on stdout
work         the payload, what a handler does with it, percentiles
on_asyncio   the tasks, for a library on asyncio
on_threads   the tasks, for a library whose calls block
"""
