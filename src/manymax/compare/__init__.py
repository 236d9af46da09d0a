"""The workbench: a plan becomes jobs, jobs become lines of results, results become a report."""
