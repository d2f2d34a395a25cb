"""Exports verdicts as JSON lines, CSV and Parquet. A file is written aside, and renamed when it is whole."""
