"""Funnels: the steps that leads pass through, and the tasks that each step brings."""
