"""Evaluators and error analysis."""
