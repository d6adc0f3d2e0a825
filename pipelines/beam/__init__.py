"""Run pure functions on Apache Beam, which only this package imports."""
