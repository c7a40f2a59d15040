//! Reading: the rows RD01 and following of docs/faults.md.
