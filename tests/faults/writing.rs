//! Writing: the rows WR01 and following of docs/faults.md.
