//! Overload and abuse: the rows OV01 and following of docs/faults.md.
