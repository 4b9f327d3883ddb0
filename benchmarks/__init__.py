"""Speed and quality, each with a peer beside it in the same run."""
