"""What SGLang loads into its own processes: our image processor and our model class. See README.md.

SGLang imports every module of the packages `processors` and `models`, so each holds nothing else. Nothing here
imports the rest of Vetline, Celery or SQL: SGLang's environment may have none of them.
"""
