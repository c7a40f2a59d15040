//! Misuse of the interface: the rows AP01 and following of docs/faults.md.
