"""Speed and memory of this machine, measured side by side with other packages: `orb-export bench`."""
