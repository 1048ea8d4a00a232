"""The scripts that the webui ships."""
