//! Resets: the rows RS01 and following of docs/faults.md.
