//! Readiness: the rows RY01 and following of docs/faults.md.
