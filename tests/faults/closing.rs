//! Closing: the rows CL01 and following of docs/faults.md.
