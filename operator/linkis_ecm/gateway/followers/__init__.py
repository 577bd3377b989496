"""Followers of tasks: an agent's lines as events, and one reader for all who follow a task."""
