//! Large tables, changed in place while workers read them.
//!
//! What must stay true: readers never block and never see half of a change; a table is never cloned or rebuilt to change an entry.

mod groups;
mod mapping;

pub use groups::{Groups, Listeners, group_in};
pub use mapping::{MappingTable, Place, TableFull, Target};

#[cfg(test)]
mod tests;
