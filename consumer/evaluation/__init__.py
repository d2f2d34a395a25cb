"""Evaluation: how right verdicts are, against labels that people gave, and how sure that is.

sources read labelled rows; sample holds them beside their verdicts; counts, intervals, scores and paired are the
statistics; measure puts them together; report is what is stored and shown. numpy, scipy and scikit-learn come with
the extra `evaluate` and are loaded only where something is computed.
"""
