//! Silence: the rows SI01 and following of docs/faults.md.
