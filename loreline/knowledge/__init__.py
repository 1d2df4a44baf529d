"""From what a source says to documents and chunks: pure functions of their arguments."""
