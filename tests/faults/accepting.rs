//! Accepting: the rows AC01 and following of docs/faults.md.
