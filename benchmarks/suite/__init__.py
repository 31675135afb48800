"""The parts of ``benchmarks.run_suite``."""
