"""What a value must be: numbers and spans, arguments of calls, types that survive JSON."""
