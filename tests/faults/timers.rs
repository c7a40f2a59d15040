//! Timers and clock: the rows TM01 and following of docs/faults.md.
