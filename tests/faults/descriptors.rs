//! Descriptors and memory: the rows FD01 and following of docs/faults.md.
