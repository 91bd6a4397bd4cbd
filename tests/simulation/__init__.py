"""The engine searched, not sampled: the real bus, workers and relay in a world whose time and chance come from a seed.

    python -m tests.simulation --schedules 100000 --processes 2  names the seed of each schedule that violates something
    python -m tests.simulation --replay SEED --trace             the same schedule again, with all that happens in it
    python -m tests.simulation --plant 'leases are not renewed'  with a bug planted, to see it found

A schedule is 25 seconds of publishing, handling and faults, then healing, then as long as it takes to drain it all,
by the simulation's clock, which jumps from one thing to the next. It costs about a tenth of a second.

    plan.py         who is there, what is published, which faults strike when: drawn from the seed
    loop.py         an event loop for several processes, each of which can be frozen or killed alone
    network.py      connections whose bytes take their time, are held up, or get lost
    server/         a Redis in memory that runs the engine's own Lua scripts; test_server.py holds it against real ones
    postgres.py     outbox, sessions and advisory locks, as far as the relay asks for them
    randomness.py   clocks, random numbers and names of processes, as the engine is told them
    application.py  what runs in the processes, and keeps a history of itself
    fate.py         the faults: kill, freeze, lost request, lost reply, late reply, partition, a server that is frozen,
                    killed, full, or forgets its scripts, a second owner, a session that is cut
    checks.py       the invariants, and what is wrong when they do not hold
    plants.py       bugs to plant; each must be found
    world.py        one schedule from beginning to end

What is not in it: the thread that keeps leases while a loop is blocked, the spool, sessions, limits, memory transport.
Those have tests of their own on real servers, in tests/faults and elsewhere.
"""
