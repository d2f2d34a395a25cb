"""Verdicts as files: JSON lines, CSV and Parquet, written aside and put in place when they are whole."""
