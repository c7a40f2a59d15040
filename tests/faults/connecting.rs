//! Connecting: the rows CN01 and following of docs/faults.md.
