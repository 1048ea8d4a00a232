"""Files under the output folders."""
