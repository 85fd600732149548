//! Hostile programs against whole sessions, on the real kernel.
//!
//! What memory holds is always a function of a few counters that lie in it. So a commit is checked byte for byte without
//! knowing its instant: its counters say what all the rest must be.
//!
//! | room | who attacks |
//! |---|---|
//! | `writers` | threads at full speed, while checkpoints and restores follow each other |
//! | `neighbours` | a writer that is at a dirty page's clean neighbours as soon as the gate opens |
//! | `kernel_writes` | system calls that write into a segment; advice, locks and huge pages |
//! | `forks` | children that end at once, and children that use what they inherited |
//! | `addresses` | whoever lies where a segment wants to be |
//! | `damage` | files that are lost, changed, or from the future |
//! | `long_life` | a thousand checkpoints |
//! | `warming` | writers and readers of what is cold, at the moment when it becomes warm |
//! | `swap` | whoever takes dirty pages out of memory |
//! | `harness` | what they share |

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::host_endian_bytes,
    reason = "a failed test panics; what is compared was written by this very process"
)]

mod addresses;
mod damage;
mod forks;
mod harness;
mod kernel_writes;
mod long_life;
mod neighbours;
mod swap;
mod warming;
mod writers;
