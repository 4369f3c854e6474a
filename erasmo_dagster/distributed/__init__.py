"""The heavy stages on a Ray cluster: its own engines do the work, the stages hand it out and take it back."""
