"""ERASMO itself: tables in, arrays and named results out."""
