"""Rules that must hold whatever the numbers: many inputs, made up or gone through one by one."""
