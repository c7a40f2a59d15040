//! Threads and wake-up: the rows TH01 and following of docs/faults.md.
