"""The webui's selectable scripts, one file each (contract: webui-scripts 2 to 9)."""
