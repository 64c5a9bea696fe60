//! The pure core, without a kernel: scenario files and properties.

mod notation;
mod properties;
mod scenarios;
