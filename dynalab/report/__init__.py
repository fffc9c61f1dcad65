"""The report: stored runs and analyses in, one self-contained HTML page and its figures out."""
