//! Keyed state tables: what a stateful operator remembers from one micro-batch to the next.
//!
//! A [`StateTable`] holds one record a key. It is asked and changed a batch of keys at a time, never
//! a key at a time, and it speaks Arrow arrays:
//!
//! ```text
//!  key arrays ─ intern ─► local ids 0..n of this trigger        (the touched list)
//!                             │
//!       values(existing) ◄────┤ old values of the keys that were there before
//!       set_values(range) ────┤ new values
//!       keys, values(range) ◄─┘ what changed: the output of update mode, and the changelog
//!       commit                  the touched list is forgotten
//!       evict(until)            records that are over go, a pane at a time
//! ```
//!
//! Inside, a record is a few 64-bit words in a page, found through
//! an index of many small hash tables, so that the cost of a trigger follows the keys it touches and
//! growth never stalls it. Records that are over at the same time form a pane: eviction costs what it
//! evicts, and gives memory back as it goes.
//!
//! **Architecture invariant:** Arrow only. This crate knows no plan, no file and no clock, and no
//! user code runs while a table is borrowed.

mod bytes;
mod fill;
mod fixed;
mod hash;
mod index;
mod keys;
mod pages;
mod panes;
mod recent;
mod store;
mod table;
mod values;

pub use table::{Chunk, StateTable, Touched};

#[cfg(test)]
mod tests;
