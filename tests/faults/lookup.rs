//! Name lookup: the rows LK01 and following of docs/faults.md.
