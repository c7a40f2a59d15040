//! Half-close: the rows HC01 and following of docs/faults.md.
