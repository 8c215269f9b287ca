"""What stands behind predict.py: models by name, progress, metrics, output files."""
